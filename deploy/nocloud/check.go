package nocloud

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/ssh"
)

// How many bytes of each a deployment takes. The seed's partition holds 4 MiB when pxectl adds it.
const (
	MaxUserData = 1 << 20
	MaxUnpacked = 8 << 20 // of user-data in gzip
	MaxNetwork  = 256 << 10
	MaxKeys     = 64 << 10
)

// CheckSizes says what is too large for a seed. It looks at nothing else.
func CheckSizes(userData []byte, network string, keys []string) error {
	all := 0
	for _, k := range keys {
		all += len(k)
	}
	switch {
	case len(userData) > MaxUserData:
		return fmt.Errorf("user-data: %d bytes, at most %d; let it fetch the rest, by #include or runcmd",
			len(userData), MaxUserData)
	case len(network) > MaxNetwork:
		return fmt.Errorf("network-config: %d bytes, at most %d", len(network), MaxNetwork)
	case all > MaxKeys:
		return fmt.Errorf("SSH keys: %d bytes, at most %d", all, MaxKeys)
	}
	return nil
}

// CheckKeys says which line is no public key.
func CheckKeys(keys []string) error {
	for i, k := range keys {
		if strings.ContainsAny(strings.TrimSpace(k), "\r\n") {
			return fmt.Errorf("SSH key %d: more than one line", i+1)
		}
		if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k)); err != nil {
			return fmt.Errorf("SSH key %d: no public key as in authorized_keys", i+1)
		}
	}
	return nil
}

// kinds are the headers by which cloud-init recognizes user-data, in upper or lower case and after white
// space (INCLUSION_TYPES_MAP in cloudinit/handlers/__init__.py). A longer header comes before a shorter one
// that it begins with.
var kinds = []string{
	"#cloud-config-archive", "#cloud-config-jsonp", "#cloud-config", "#cloud-boothook", "#include-once",
	"#include", "#part-handler",
	"#upstart-job", "## template: jinja", "#!",
}

// CheckUserData says why cloud-init would ignore user-data, or nil.
func CheckUserData(data []byte) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	if bytes.HasPrefix(data, []byte("\x1f\x8b")) {
		plain, err := gunzip(data)
		if err != nil {
			return fmt.Errorf("user-data: gzip: %w", err)
		}
		data = plain
	}
	if err := checkText(data); err != nil {
		return fmt.Errorf("user-data: %w", err)
	}
	body := bytes.TrimLeft(data, " \t\r\n\v\f")
	lower := bytes.ToLower(body[:min(len(body), 64)])
	if isMIME(lower) {
		return checkMIME(body)
	}
	i := slices.IndexFunc(kinds, func(k string) bool { return bytes.HasPrefix(lower, []byte(k)) })
	switch {
	case i < 0 && bytes.Contains(data, []byte("\n#cloud-config")):
		return errors.New("user-data: #cloud-config stands behind other lines; " +
			"it must be the first one, or cloud-init ignores all")
	case i < 0:
		return fmt.Errorf("user-data begins with %.32q, by which cloud-init does not know it; "+
			"begin with #cloud-config, #!, or another of its headers",
			firstLine(body))
	case kinds[i] == "#cloud-config":
		node, err := parseYAML(data)
		if err != nil {
			return fmt.Errorf("user-data: #cloud-config: %w", err)
		}
		if node != nil && node.Kind != yaml.MappingNode {
			return errors.New("user-data: #cloud-config is not a list of `key: value`")
		}
	case kinds[i] == "#cloud-config-archive":
		node, err := parseYAML(data)
		if err != nil {
			return fmt.Errorf("user-data: #cloud-config-archive: %w", err)
		}
		if node == nil || node.Kind != yaml.SequenceNode {
			return errors.New("user-data: #cloud-config-archive is not a list")
		}
	case kinds[i] == "#cloud-config-jsonp":
		_, patch, _ := bytes.Cut(body, []byte("\n"))
		if !json.Valid(patch) {
			return errors.New("user-data: #cloud-config-jsonp is not JSON")
		}
	}
	return nil
}

// CheckNetwork says why cloud-init would ignore a network-config, or nil.
func CheckNetwork(network string) error {
	if strings.TrimSpace(network) == "" {
		return nil
	}
	if err := checkText([]byte(network)); err != nil {
		return fmt.Errorf("network-config: %w", err)
	}
	node, err := parseYAML([]byte(network))
	if err != nil {
		return fmt.Errorf("network-config: %w", err)
	}
	version := member(node, "version")
	switch {
	case node == nil || node.Kind != yaml.MappingNode:
		return errors.New("network-config is not a list of `key: value`")
	case version == nil && member(node, "network") != nil:
		return errors.New("network-config: all stands below `network:`, as in netplan's files; " +
			"take that line away, and the indentation")
	case version == nil:
		return errors.New("network-config: version is missing; want `version: 2`, as in netplan, or `version: 1`")
	case version.Tag != "!!int" || version.Value != "1" && version.Value != "2":
		return fmt.Errorf("network-config: version %.16q, want the number 1 or 2", version.Value)
	}
	return nil
}

func gunzip(data []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(z, MaxUnpacked+1))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("it is cut off")
	case err != nil:
		return nil, err
	case len(plain) > MaxUnpacked:
		return nil, fmt.Errorf("unpacks to more than %d bytes", MaxUnpacked)
	}
	return plain, nil
}

func checkText(data []byte) error {
	const save = "; save it as UTF-8 without a byte order mark"
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return errors.New("begins with a byte order mark, behind which cloud-init sees no header" + save)
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		return errors.New("is UTF-16" + save)
	case bytes.IndexByte(data, 0) >= 0:
		return errors.New("has bytes of zero in it: no text, or UTF-16" + save)
	case !utf8.Valid(data):
		return errors.New("is not UTF-8" + save)
	}
	return nil
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return string(line)
}

func isMIME(lower []byte) bool {
	return bytes.HasPrefix(lower, []byte("mime-version:")) || bytes.HasPrefix(lower, []byte("content-type:"))
}

// checkMIME looks at the headers alone; cloud-init names the parts that it ignores in its own log.
func checkMIME(body []byte) error {
	m, err := mail.ReadMessage(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("user-data: MIME: %w", err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	switch {
	case err != nil:
		return fmt.Errorf("user-data: MIME: Content-Type: %w", err)
	case strings.HasPrefix(kind, "multipart/") && params["boundary"] == "":
		return errors.New("user-data: MIME: Content-Type has no boundary")
	}
	return nil
}

// parseYAML returns the only document in data, or nil when there are only comments. Aliases are not followed,
// so they cost nothing. The parser is a port of libyaml, with the same rules as cloud-init's.
func parseYAML(data []byte) (*yaml.Node, error) {
	var found *yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		switch err := dec.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, fmt.Errorf("the YAML is broken: %.200s", strings.TrimPrefix(err.Error(), "yaml: "))
		case found != nil:
			return nil, errors.New("more than one document")
		}
		if len(doc.Content) > 0 && doc.Content[0].Tag != "!!null" {
			found = doc.Content[0]
		}
	}
}

// member is the value of a key of a mapping, or nil.
func member(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}
