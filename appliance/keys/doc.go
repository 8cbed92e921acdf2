// Package keys holds the appliance's secrets. They are made at the first start and kept in files of mode 0600
// beside the database.
//
// Without age.key, sealed passwords and user-data are lost. With another tls.key, running agents no longer
// trust the appliance.
package keys
