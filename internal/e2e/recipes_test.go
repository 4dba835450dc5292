package e2e

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// recipe is a section of contrib/docs/policies.md: commands and tables in turn.
type recipe struct {
	title string
	steps []recipeStep
}

// recipeStep is a block of commands, or one row of a table.
type recipeStep struct {
	commands                  string
	account, from, with, then string
}

func recipes(t *testing.T) []recipe {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "contrib", "docs", "policies.md"))
	if err != nil {
		t.Fatal(err)
	}
	var list []recipe
	block := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$|^\\| (\\w+) \\| ([0-9a-f.:]+) \\| ([a-z ]+) \\| ([a-z, ]+) \\|$")
	recipes, _, _ := strings.Cut(string(text), "\n# Reference\n")
	for _, section := range strings.Split(recipes, "\n## ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		r := recipe{title: title}
		for _, m := range block.FindAllStringSubmatch(body, -1) {
			r.steps = append(r.steps, recipeStep{m[1], m[2], m[3], m[4], m[5]})
		}
		if rows := strings.Count(body, "\n| ") - strings.Count(body, "\n| account |"); rows+strings.Count(body, "```sh") != len(r.steps) {
			t.Fatalf("%s: %d of its %d rows and blocks can be read", title, len(r.steps), rows)
		}
		list = append(list, r)
	}
	return list
}

// Every recipe of contrib/docs/policies.md is typed as it stands, and every login of its tables is made.
func TestPolicyRecipes(t *testing.T) {
	t.Parallel()
	var accounts []trialstack.Account
	for _, name := range []string{"ann", "ida", "tom", "scanner", "postmaster"} {
		accounts = append(accounts, trialstack.Account{Address: name + "@example.org", Password: name + "-mailbox"})
	}
	s := start(t, trialstack.Options{Accounts: accounts, Settings: map[string]any{"regions.database": debian(t)}})
	s.domain(nil)
	for account, department := range map[string]string{"ann": "sales/emea", "ida": "interns/summer", "tom": "travellers"} {
		s.api("PUT", "/v1/domains/example.org/departments/"+department, object{})
		s.api("PUT", "/v1/accounts/"+account+"@example.org", object{"departments": []string{department}})
	}
	all := recipes(t)
	if len(all) < 7 {
		t.Fatalf("there are %d recipes", len(all))
	}
	for _, r := range all {
		t.Run(r.title, func(t *testing.T) {
			s := s.in(t)
			defer s.clear()
			tried := 0
			for _, step := range r.steps {
				if step.commands != "" {
					s.typed(step.commands)
					continue
				}
				tried++
				s.row(step)
			}
			if tried == 0 {
				t.Error("nothing was tried")
			}
		})
	}
	t.Run("mail-flow.md", func(t *testing.T) { s.in(t).mailFlowPage() })
}

// mailFlowPage types every command of contrib/docs/mail-flow.md as it stands. Those about a message
// or a suspension of the page are understood, and find none.
func (s *site) mailFlowPage() {
	s.t.Helper()
	for _, department := range []string{"interns", "sales", "legal"} {
		s.api("PUT", "/v1/domains/example.org/departments/"+department, object{})
	}
	const notFound = 66
	of := regexp.MustCompile(`4XyZ|7c0e5a1b2f3d4e60|\bID\b`) // ids of the page
	typed := 0
	for _, block := range regexp.MustCompile("(?ms)^```(?:console|sh)\n(.*?)^```$").FindAllStringSubmatch(page(s.t, "contrib/docs/mail-flow.md"), -1) {
		for command := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", "")) {
			typed++
			status := 0
			if of.MatchString(command) {
				status = notFound
			}
			command = strings.TrimPrefix(command, "$ ")
			shell := s.shell(command)
			if out, err := shell.CombinedOutput(); shell.ProcessState.ExitCode() != status {
				s.t.Errorf("%v, want %d: %s%s", err, status, command, out)
			}
		}
	}
	if typed < 18 {
		s.t.Errorf("%d commands can be read", typed)
	}
}

// clear takes away the policies and blocks that a recipe made.
func (s *site) clear() {
	s.t.Helper()
	for _, p := range s.api("GET", policies, nil)["items"].([]any) {
		if id := p.(object)["id"].(string); id != "third-party-access" {
			s.api("DELETE", policies+"/"+id+"?confirm=true", nil)
		}
	}
	const blocks = "/v1/domains/example.org/ip-blocks"
	for _, b := range s.api("GET", blocks, nil)["items"].([]any) {
		s.api("DELETE", blocks+"/"+b.(object)["id"].(string), nil)
	}
}

// typed runs commands of the documentation, which must succeed. Some would lock out most accounts
// that logged in a moment ago, so --confirm is added.
func (s *site) typed(commands string) {
	s.t.Helper()
	if out, err := s.shell(commands).CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %s%s", err, commands, out)
	}
}

// shell is a shell that runs commands as the documentation writes them.
func (s *site) shell(commands string) *exec.Cmd {
	daemon := s.Daemons[0].Command(s.ctx)
	script := "set -e\ndrawbridge() {\n  case \"$1 $2\" in \"policy create\"|\"ip-block add\") set -- \"$@\" --confirm;; esac\n  " +
		strings.Join(daemon.Args, " ") + " \"$@\"\n}\n" + commands
	shell := exec.CommandContext(s.ctx, "bash", "-c", script)
	shell.Env = daemon.Env
	return shell
}

// row makes the login of one row.
func (s *site) row(r recipeStep) {
	s.t.Helper()
	account, ip := r.account+"@example.org", netip.MustParseAddr(r.from)
	since := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	var reply, yes string
	switch r.with {
	case "a mail program":
		c, err := trialstack.Balanced(ip).IMAP(s.ctx, s.BalancedIMAP())
		s.must(err)
		reply, yes = answer(s, c, c.StartTLS, c.Login, account, s.passwords[account]).Status, "OK "
	case "webmail":
		c, err := mailclient.Client{From: webmail}.IMAP(s.ctx, s.IMAP())
		s.must(err)
		_, err = c.ID("name", "webmail", "x-originating-ip", r.from)
		s.must(err)
		login, err := c.Login(account, s.passwords[account])
		s.must(err)
		s.must(c.Close())
		reply, yes = login.Status, "OK "
	case "submission":
		c, r, err := trialstack.Balanced(ip).Login(s.ctx, s.BalancedSubmission(), account, s.passwords[account])
		s.must(err)
		s.must(c.Close())
		reply, yes = r, "235 "
	default:
		s.t.Fatalf("with %q", r.with)
	}
	what := r.account + " from " + r.from + " with " + r.with
	then, recorded := strings.CutSuffix(r.then, ", recorded")
	switch then {
	case "in":
		s.want(what, reply, yes)
	case "refused":
		s.refuse(what, reply, yes)
	default:
		s.t.Fatalf("%s: then %q", what, r.then)
	}
	record := s.record("account="+account+"&ip="+r.from+"&since="+since, func(object) bool { return true })
	if (record["would_refuse"] != nil) != recorded {
		s.t.Errorf("%s: the record %v", what, record)
	}
}
