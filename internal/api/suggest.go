package api

import (
	"fmt"
	"strings"

	"github.com/drawbridge/drawbridge/internal/spelling"
)

// Suggest returns ": did you mean X?" for the nearest of the known names, or ": known are …".
func Suggest(name string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := spelling.Distance(name, k, least); d < least && d < len(k) {
			best, least = k, d
		}
	}
	if best == "" {
		return fmt.Sprintf(": known are %s", strings.Join(known, ", "))
	}
	return fmt.Sprintf(": did you mean %s?", best)
}
