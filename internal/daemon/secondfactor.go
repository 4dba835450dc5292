package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/inject"
	"github.com/drawbridge/drawbridge/internal/notify"
	"github.com/drawbridge/drawbridge/internal/passkey"
	"github.com/drawbridge/drawbridge/internal/secondfactor"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

// sendWithin bounds the sending of a one-time code, for which somebody waits.
const sendWithin = 20 * time.Second

// secondFactors returns what verifies second factors.
func secondFactors(cfg *config.Config, st *store.Store, redis *redisstore.Redis, pepper *credential.Pepper, client *inject.Client) (*secondfactor.Verifier, error) {
	v := &secondfactor.Verifier{Store: st, Memory: redis, Pepper: pepper, Mail: codeMail(client, nodeName(cfg))}
	if cfg.Console.PublicURL != "" {
		var err error
		if v.Passkeys, err = passkey.New(cfg.Console.PublicURL, "Drawbridge"); err != nil {
			return nil, fmt.Errorf("console.public_url: %w", err)
		}
	}
	if cfg.Notify.SMSWebhookURL != "" {
		key, err := config.ReadSecret(cfg.Notify.SMSWebhookKeyFile)
		if err != nil {
			return nil, fmt.Errorf("notify.sms_webhook_key_file: %w", err)
		}
		v.SMS = codeSMS(cfg.Notify.SMSWebhookURL, key)
	}
	return v, nil
}

// codeText is the text of a message with a one-time code.
func codeText(account, code string) string {
	return fmt.Sprintf("%s is your code for %s. It is valid for 10 minutes. If you did not ask for it, somebody knows your password: change it.", code, account)
}

// codeMail sends codes by mail.
func codeMail(client *inject.Client, node string) func(ctx context.Context, account, to, code string) error {
	return func(ctx context.Context, account, to, code string) error {
		ctx, cancel := context.WithTimeout(ctx, sendWithin)
		defer cancel()
		id := store.NewID()
		text := strings.Join([]string{
			"From: <postmaster@" + address.Domain(account) + ">", "To: <" + to + ">", "Subject: Your code", "Date: " + time.Now().Format(time.RFC1123Z),
			"Message-ID: <" + id + "@" + node + ">", "Auto-Submitted: auto-generated", "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "",
			codeText(account, code), "",
		}, "\r\n")
		res, err := client.Send(ctx, &inject.Message{
			Envelope: inject.Envelope{Recipients: []inject.Recipient{{Address: to, Params: []string{"NOTIFY=NEVER"}}}},
			Pass:     inject.Pass{ID: id, Notice: true}, Body: strings.NewReader(text),
		})
		switch {
		case err != nil:
			return fmt.Errorf("sending a code by mail: %w", err)
		case len(res.Accepted) == 0:
			return errors.New("sending a code by mail: the server refused the recipient")
		}
		return nil
	}
}

// codeSMS posts codes to the site's SMS gateway.
func codeSMS(url string, key []byte) func(ctx context.Context, account, number, code string) error {
	client := &http.Client{Timeout: sendWithin, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return func(ctx context.Context, account, number, code string) error {
		body, err := json.Marshal(map[string]string{"account": account, "number": number, "text": codeText(account, code)})
		if err != nil {
			return fmt.Errorf("encoding a code: %w", err)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return fmt.Errorf("sending a code by SMS: %w", err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Drawbridge-Signature", notify.Sign(key, time.Now(), body))
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("sending a code by SMS: %w", err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			return fmt.Errorf("sending a code by SMS: the gateway answered %s", resp.Status)
		}
		return nil
	}
}
