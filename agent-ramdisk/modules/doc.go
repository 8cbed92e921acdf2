// Package modules handles kernel modules without depmod and kmod: it reads a module's information (its
// .modinfo section), keeps it as an index in the ramdisk, and loads drivers for the present devices by their
// modalias ("coldplug").
//
// The pattern language of aliases is that of fnmatch(3), as in modules.alias; the section's
// format is that of the kernel's include/linux/module.h (NUL-separated key=value).
package modules
