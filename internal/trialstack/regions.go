package trialstack

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/drawbridge/drawbridge/internal/region"
)

// Regions returns the path of Debian's region database: the installed one, or the one that
// contrib/trial/fetch-regions.sh downloaded into the project's directory.
func Regions(project string) (string, error) {
	fetched, err := filepath.Abs(filepath.Join(project, ".cache", "tor-geoipdb", "geoip"))
	if err != nil {
		return "", err
	}
	for _, path := range []string{region.Debian, fetched} {
		if _, err := os.Stat(path + "6"); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no database of regions in %s or %s: run contrib/trial/fetch-regions.sh, or apt-get install tor-geoipdb", region.Debian, fetched)
}
