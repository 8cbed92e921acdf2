// Package keys holds the appliance's secrets: made at the first start, kept in files of mode 0600 beside the
// database.
//
// Without age.key, sealed passwords and user-data are lost. With another tls.key, agents that run no longer
// trust the appliance.
package keys
