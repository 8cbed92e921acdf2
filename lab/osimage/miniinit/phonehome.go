package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// postFields are the fields of cc_phone_home for "post: all".
var postFields = []string{
	"pub_key_dsa", "pub_key_rsa", "pub_key_ecdsa", "pub_key_ed25519", "instance_id", "hostname", "fqdn",
}

// phoneHome posts the fields, form-encoded, until the answer is a success: tries times with 3 s between them,
// as cc_phone_home does.
func phoneHome(
	ctx context.Context, s Seed, keys map[string]string, sleep func(time.Duration),
) (status string, err error) {
	have := map[string]string{"instance_id": s.InstanceID, "hostname": s.Hostname, "fqdn": s.FQDN}
	form := url.Values{}
	for _, name := range s.PhoneHome.Post {
		switch key, isKey := strings.CutPrefix(name, "pub_key_"); {
		case isKey && keys[key] != "":
			form.Set(name, keys[key])
		case have[name] != "":
			form.Set(name, have[name])
		default:
			form.Set(name, "N/A")
		}
	}
	client := http.Client{Timeout: 20 * time.Second}
	for try := 1; ; try++ {
		if status, err = post(ctx, &client, s.PhoneHome.URL, form); err == nil {
			return status, nil
		}
		if try >= s.PhoneHome.Tries {
			return "", fmt.Errorf("after %d tries: %w", try, err)
		}
		sleep(3 * time.Second)
	}
}

func post(ctx context.Context, client *http.Client, to string, form url.Values) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("User-Agent", "pxectl-mini")
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode >= 300 {
		return "", errors.New(resp.Status)
	}
	return resp.Status, nil
}

// hostKeys reads the SSH host key's public half, by type, and makes the key at the first boot. There is no
// SSH server; the key is part of the reported identity.
func hostKeys(root string) (map[string]string, error) {
	private := filepath.Join(root, "etc/ssh/ssh_host_ed25519_key")
	public := private + ".pub"
	if text, err := os.ReadFile(public); err == nil {
		return map[string]string{"ed25519": string(text)}, nil
	}
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		return nil, err
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, err
	}
	text := ssh.MarshalAuthorizedKey(sshPub)
	err = errors.Join(os.MkdirAll(filepath.Dir(private), 0o755),
		os.WriteFile(private, pem.EncodeToMemory(block), 0o600), os.WriteFile(public, text, 0o644))
	return map[string]string{"ed25519": string(text)}, err
}
