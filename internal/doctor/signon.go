package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/drawbridge/drawbridge/internal/config"
)

// askIssuer reads the metadata of the OpenID provider, if there is one.
func askIssuer(ctx context.Context, c *config.Config) findings {
	const check, setting = "daemon.oidc", "console.oidc_issuer"
	var f findings
	if c.Console.OIDCIssuer == "" {
		return f
	}
	if err := checkIssuer(ctx, c.Console.OIDCIssuer); err != nil {
		f.fail(check, setting, "# write the issuer as the provider names itself", "%v: users cannot log in there", err)
		return f
	}
	f.ok(check, setting, "%s names itself so in its metadata", c.Console.OIDCIssuer)
	return f
}

func checkIssuer(ctx context.Context, issuer string) error {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", nil)
	if err != nil {
		return fmt.Errorf("asking the OpenID provider: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("asking the OpenID provider: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var metadata struct {
		Issuer string `json:"issuer"`
	}
	switch err := json.NewDecoder(io.LimitReader(resp.Body, maxOutput)).Decode(&metadata); {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the OpenID provider answers %s", resp.Status)
	case err != nil:
		return fmt.Errorf("reading the metadata of the OpenID provider: %w", err)
	case metadata.Issuer != issuer:
		return fmt.Errorf("the OpenID provider calls itself %q", metadata.Issuer)
	}
	return nil
}
