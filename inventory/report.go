package inventory

// A Report is what the agent found in a machine, as the hardware reports it, with sizes in bytes. A field
// that could not be read is zero, and Problems says why.
type Report struct {
	AgentVersion string      `json:"agent_version"`
	Kernel       string      `json:"kernel"`
	Arch         string      `json:"arch"`     // GOARCH of the ramdisk: amd64, arm64
	Firmware     string      `json:"firmware"` // "bios" or "uefi"
	BootMAC      MAC         `json:"boot_mac"`
	System       System      `json:"system"`
	CPU          CPU         `json:"cpu"`
	Memory       Memory      `json:"memory"`
	Disks        []Disk      `json:"disks"`
	NICs         []NIC       `json:"nics"`
	PCI          []PCIDevice `json:"pci,omitempty"`
	BMC          *BMCReport  `json:"bmc,omitempty"`
	Problems     []string    `json:"problems,omitempty"` // what could not be read, and why
}

// System is the identity of the machine from its SMBIOS tables (DMTF DSP0134, types 0 to 2).
type System struct {
	Manufacturer string `json:"manufacturer"`
	Product      string `json:"product"`
	Serial       string `json:"serial"`
	UUID         string `json:"uuid"`
	SKU          string `json:"sku,omitempty"`
	Asset        string `json:"asset,omitempty"`
	Board        string `json:"board,omitempty"`
	BIOSVendor   string `json:"bios_vendor,omitempty"`
	BIOSVersion  string `json:"bios_version,omitempty"`
	BIOSDate     string `json:"bios_date,omitempty"`
}

// CPU is all processors of a machine together.
type CPU struct {
	Model   string `json:"model"`
	Sockets int    `json:"sockets"`
	Cores   int    `json:"cores"`   // physical, all sockets
	Threads int    `json:"threads"` // logical, all sockets
}

// Memory is the memory of a machine, in all and by module.
type Memory struct {
	Bytes uint64 `json:"bytes"` // as the kernel sees it
	DIMMs []DIMM `json:"dimms,omitempty"`
}

// A DIMM is one memory module.
type DIMM struct {
	Slot   string `json:"slot"`
	Bytes  uint64 `json:"bytes"`
	Type   string `json:"type,omitempty"`
	MTs    uint   `json:"mt_s,omitempty"` // megatransfers per second
	Serial string `json:"serial,omitempty"`
}

// A Disk is one whole block device of a machine.
type Disk struct {
	Name           string   `json:"name"`      // in this boot only: "vda", "nvme0n1"
	ByPath         string   `json:"by_path"`   // its place: "pci-0000:00:05.0", stable between boots
	Transport      string   `json:"transport"` // virtio, sata, nvme, sas, usb, scsi
	Vendor         string   `json:"vendor,omitempty"`
	Model          string   `json:"model,omitempty"`
	Serial         string   `json:"serial,omitempty"`
	WWN            string   `json:"wwn,omitempty"`
	HCTL           string   `json:"hctl,omitempty"`
	Bytes          uint64   `json:"bytes"`
	LogicalSector  int      `json:"logical_sector"`
	PhysicalSector int      `json:"physical_sector"`
	Rotational     bool     `json:"rotational,omitempty"`
	Removable      bool     `json:"removable,omitempty"`
	ReadOnly       bool     `json:"read_only,omitempty"`
	Content        []string `json:"content,omitempty"` // signatures: "gpt", "mbr", "ext4", "cidata", …
}

// A NIC is one network interface.
type NIC struct {
	Name    string `json:"name"`
	MAC     MAC    `json:"mac"`
	Driver  string `json:"driver,omitempty"`
	Path    string `json:"path,omitempty"` // PCI address
	Carrier bool   `json:"carrier"`
	Mbps    int    `json:"mbps,omitempty"`
	Boot    bool   `json:"boot,omitempty"` // the machine network-booted from it
}

// A PCIDevice is one PCI function.
type PCIDevice struct {
	Address  string `json:"address"`
	Class    string `json:"class"`            // six hex digits
	Vendor   string `json:"vendor"`           // four hex digits
	Device   string `json:"device"`           // four hex digits
	Name     string `json:"name,omitempty"`   // of vendor and device; the appliance fills it in
	Driver   string `json:"driver,omitempty"` // "" without a driver
	Modalias string `json:"modalias,omitempty"`
}

// BMCReport is the BMC's in-band answer (/dev/ipmi0) to Get Device ID and Get LAN Configuration Parameters
// (IPMI 2.0 sections 20.1 and 23.2).
type BMCReport struct {
	Address  string `json:"address,omitempty"` // "" when no LAN channel has one
	Netmask  string `json:"netmask,omitempty"`
	Gateway  string `json:"gateway,omitempty"`
	MAC      MAC    `json:"mac,omitempty"`
	Channel  int    `json:"channel,omitempty"`
	Firmware string `json:"firmware,omitempty"`
}
