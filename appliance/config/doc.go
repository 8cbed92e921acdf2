// Package config reads appliance.yaml and reports all its mistakes at once, each with its key and value.
package config
