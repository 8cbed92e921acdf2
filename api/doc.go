// Package api is the control plane on the wire: the REST API that operators and scripts use, the
// HTTP side of what agents call (inventory/agent.go documents it), and the Go client that the CLI
// is made of.
//
// It decides nothing. Fleet, Images and Agents are asked, and their answers and Problems
// are put into HTTP: JSON, RFC 9457 problems with a code and a hint, server-sent events, an HTTP
// Upgrade for consoles. The OpenAPI 3.1 document at /openapi.json is made from the same Go types.
//
// It does not choose sockets, certificates or addresses: package appliance does, and calls Serve.
package api
