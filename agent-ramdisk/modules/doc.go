// Package modules knows kernel modules without depmod and kmod: it reads what a module says of itself
// (its .modinfo section), keeps that as an index in the ramdisk, and loads drivers
// for the devices that are there by their modalias ("coldplug").
//
// The pattern language of aliases is that of fnmatch(3), as in modules.alias; the section's
// format is that of the kernel's include/linux/module.h (NUL-separated key=value).
package modules
