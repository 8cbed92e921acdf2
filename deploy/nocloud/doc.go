// Package nocloud makes the seed that tells cloud-init on a deployed machine its host name, keys, network and
// user-data, and says beforehand what cloud-init would ignore of them.
//
// The seed is that of cloud-init's NoCloud data source: four files in a file system labelled cidata
// (https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html).
package nocloud
