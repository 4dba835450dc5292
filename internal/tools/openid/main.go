// Command openid is an OpenID provider for "make test-openid": that of zitadel/oidc, which is
// certified, over its example's store in memory. It listens on a free port of 127.0.0.1 and prints
// its issuer. Its users are in the file that USERS_FILE names.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// client is a client that may return to /account of any port of localhost.
type client struct{ op.Client }

func (client) RedirectURIGlobs() []string {
	return []string{"http://localhost:*/account/oidc/callback"}
}

func (client) PostLogoutRedirectURIGlobs() []string {
	return []string{"http://localhost:*/account/login"}
}

type store struct{ *storage.Storage }

// GetClientByClientID implements op.Storage.
func (s store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return client{c}, nil
}

// TerminateSession implements op.Storage. It prints whose session ended.
func (s store) TerminateSession(ctx context.Context, user, client string) error {
	fmt.Println("logged out:", user, client)
	return s.Storage.TerminateSession(ctx, user, client)
}

func main() {
	users, err := storage.StoreFromFile(os.Getenv("USERS_FILE"))
	if err != nil {
		log.Fatal(err)
	}
	storage.RegisterClients(storage.WebClient("drawbridge", "secret"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	issuer := "http://" + l.Addr().String()
	router := exampleop.SetupServer(issuer, store{storage.NewStorage(users)}, slog.New(slog.NewTextHandler(os.Stderr, nil)), false)
	fmt.Println(issuer)
	log.Fatal(http.Serve(l, router))
}
