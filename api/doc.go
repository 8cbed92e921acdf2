// Package api is the HTTP API of the appliance: the REST API for operators and scripts, the HTTP side of the
// agents' calls (inventory/agent.go documents them), and the Go client that the CLI uses.
//
// It decides nothing. It asks Fleet, Images and Agents, and puts their answers and Problems into HTTP: JSON,
// RFC 9457 problems with a code and a hint, server-sent events, an HTTP Upgrade for consoles. The OpenAPI 3.1
// document at /openapi.json is made from the same Go types.
//
// It does not choose sockets, certificates or addresses: package appliance does, and calls Serve.
package api
