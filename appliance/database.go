package appliance

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/pxectl/pxectl/appliance/interfaces"
	"github.com/pxectl/pxectl/appliance/keys"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// openDatabase opens the database and its keys. Unless anew is true, it refuses to replace a lost database:
// every deployed machine would be a stranger at its next network boot, and be offered the agent. It always
// refuses to replace the lost keys of a database: new ones could not read its secrets, and no agent would
// trust us.
func openDatabase(dir string, anew bool, log *slog.Logger) (*boltdb.Store, keys.Keys, error) {
	path, keyDir := filepath.Join(dir, "pxectl.db"), filepath.Join(dir, "keys")
	lost := !hasContent(path)
	had, missing := keys.In(keyDir)
	switch hasImages, err := anyImage(filepath.Join(dir, "images")); {
	case err != nil:
		return nil, keys.Keys{}, err
	case lost && !anew && (len(had) > 0 || hasImages):
		return nil, keys.Keys{}, &inventory.Problem{
			Code: inventory.CodeConflict,
			Detail: path + " is missing or empty, and keys or images of an appliance lie beside it: " +
				"with a new database, every machine that was deployed would be offered the agent at its " +
				"next network boot",
			Hint: "put the database back from your copy of " + dir +
				"; if there is none, begin anew with `pxectl serve --new-database`, " +
				"and add the machines before they boot",
		}
	case anew && !lost:
		return nil, keys.Keys{}, &inventory.Problem{
			Code: inventory.CodeConflict, Detail: "--new-database: there is a database at " + path,
			Hint: "move it away first, if it is not wanted",
		}
	}
	db, err := boltdb.Open(path)
	if err != nil {
		return nil, keys.Keys{}, err
	}
	secrets, err := matchKeys(db, keyDir, missing, log)
	if err != nil {
		db.Close()
		return nil, keys.Keys{}, err
	}
	return db, secrets, nil
}

// matchKeys loads the keys, and makes those of a new database.
func matchKeys(db *boltdb.Store, dir string, missing []string, log *slog.Logger) (keys.Keys, error) {
	owner, used, err := db.Owner()
	if err != nil {
		return keys.Keys{}, err
	}
	if used && len(missing) > 0 {
		return keys.Keys{}, &inventory.Problem{
			Code: inventory.CodeConflict,
			Detail: fmt.Sprintf("keys: %s of this database's appliance is missing in %s",
				strings.Join(missing, ", "), dir),
			Hint: "put it back from your copy of data_dir; a new one could not read the secrets in the " +
				"database, and no agent would trust it",
		}
	}
	secrets, err := keys.Load(dir)
	if err != nil {
		return keys.Keys{}, fmt.Errorf("keys: %w", err)
	}
	switch id := secrets.ID(); {
	case owner == id:
		return secrets, nil
	case owner != "":
		return keys.Keys{}, &inventory.Problem{
			Code: inventory.CodeConflict,
			Detail: "the database belongs to another appliance: its secrets are sealed to " + owner +
				", the key here is " + id,
			Hint: "bring database and keys of one appliance together",
		}
	default:
		log.Info("database begins with these keys", "keys", id)
		return secrets, db.SetOwner(id)
	}
}

func hasContent(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Size() > 0
}

// anyImage says whether there is a directory that could be an image's.
func anyImage(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return false, fmt.Errorf("images: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && len(e.Name()) == 64 {
			return true, nil
		}
	}
	return false, nil
}

// ready returns why machines cannot be served, or nil. /readyz calls it.
func ready(plane bootPlane, nics *interfaces.Set) error {
	if err := nics.Ready(); err != nil {
		return err
	}
	if _, err := plane.engine.Events(0, "", 1); err != nil {
		return fmt.Errorf("the database does not answer: %w", err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if _, ok := plane.ramdiskFile(arch, "initrd"); ok {
			return nil
		}
	}
	return &inventory.Problem{
		Code:   inventory.CodeConflict,
		Detail: "there is no ramdisk, so no machine can be booted into the agent",
		Hint:   "`pxectl ramdisk build` makes one; `pxectl doctor` checks all else",
	}
}
