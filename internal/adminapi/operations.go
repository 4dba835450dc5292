package adminapi

import (
	"net/http"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
)

// operation is one method of one path.
type operation struct {
	rest.Operation
	roles  roles // in addition to admin
	serve  serveFunc
	always bool // available before the store is loaded
}

// serveFunc carries an operation out. The answer counts only without an error.
type serveFunc = func(*call) (*answer, error)

// operations is the table of all there is.
func operations() []operation {
	get := func(path, id, summary string, r roles, out any, f serveFunc, query ...string) operation {
		return operation{Operation: rest.Operation{Method: http.MethodGet, Path: path, ID: id, Summary: summary, Out: out, Query: query}, roles: r, serve: f}
	}
	write := func(method, path, id, summary string, r roles, in, out any, f serveFunc, query ...string) operation {
		return operation{Operation: rest.Operation{Method: method, Path: path, ID: id, Summary: summary, In: in, Out: out, Query: query}, roles: r, serve: f}
	}
	remove := func(path, id, summary string, r roles, f serveFunc, query ...string) operation {
		return operation{Operation: rest.Operation{Method: http.MethodDelete, Path: path, ID: id, Summary: summary, Query: query}, roles: r, serve: f}
	}
	always := func(op operation) operation {
		op.always = true
		return op
	}
	long := func(op operation, line any) operation {
		op.Line = line
		return op
	}
	large := func(op operation) operation {
		op.Large = true
		return op
	}
	creates := func(op operation) operation {
		op.Creates = true
		return op
	}
	readiness := func(op operation) operation {
		op.Unavailable = true
		return op
	}
	csv := func(op operation) operation {
		op.InDoc = "A header line names the columns: address, departments, aliases (several separated by semicolons), imap, pop3, smtp, sieve, " +
			"suspended (true or false, empty to inherit), preset, secure_passwords. What has no column stays as it is. At most 16 MiB and 100 000 accounts."
		return op
	}
	const (
		post, put, patch = http.MethodPost, http.MethodPut, http.MethodPatch

		domains     = "/v1/domains"
		domain      = domains + "/{domain}"
		third       = domain + "/third-party-access"
		enforcement = domain + "/secure-password-policy"
		policies    = domain + "/policies"
		policy      = policies + "/{id}"
		blocks      = domain + "/ip-blocks"
		reverts     = domain + "/reverts"
		departments = domain + "/departments"
		department  = departments + "/{path...}"
		accounts    = domain + "/accounts"
		account     = "/v1/accounts/{address}"
		secures     = account + "/secure-passwords"
		secure      = secures + "/{id}"
		types       = "/v1/client-types"
		keys        = "/v1/keys"
		regions     = "/v1/regions"

		revertAfter = "revert_after"

		domainReads  = forRead | forDomain
		accountReads = forRead | forDomain | forSelf
	)
	return []operation{
		get(domains, "list-domains", "List the managed domains", domainReads, api.List[api.Domain]{}, listDomains, "limit", "cursor"),
		write(post, domains, "create-domain", "Bring a domain under management", forAdmin, api.NewDomain{}, api.Domain{}, createDomain),
		get(domain, "get-domain", "Show a domain", domainReads, api.Domain{}, getDomain),
		write(patch, domain, "patch-domain", "Change a domain", forDomain, api.Domain{}, api.Domain{}, patchDomain),
		remove(domain, "delete-domain", "Give up a domain with all that belongs to it", forAdmin, deleteDomain),
		get(domain+"/export", "export-domain", "Show all that is set for a domain as one document", domainReads, api.DomainDocument{}, exportDomain, "accounts"),
		large(write(post, domain+"/apply", "apply-domain", "Make a domain what a document says", forDomain, api.DomainDocument{}, api.Plan{}, applyDomain, revertAfter)),
		get(third, "get-third-party-access", "Show the switch for third-party clients", domainReads, api.ThirdPartyAccess{}, getThirdParty),
		write(put, third, "put-third-party-access", "Block or allow third-party clients", forDomain, api.ThirdPartyAccess{}, api.ThirdPartyAccess{}, putThirdParty, revertAfter),
		get(enforcement, "get-secure-password-policy", "Show who needs a secure password", domainReads, api.SecurePasswordPolicy{}, getSecurePolicy),
		write(put, enforcement, "put-secure-password-policy", "Enforce secure passwords, or do not", forDomain, api.SecurePasswordPolicy{}, api.SecurePasswordPolicy{}, putSecurePolicy),

		get(policies, "list-policies", "List a domain's access policies, oldest first", domainReads, api.List[api.Policy]{}, listPolicies, "limit", "cursor"),
		write(post, policies, "create-policy", "Make an access policy", forDomain, api.Policy{}, api.Policy{}, createPolicy, revertAfter),
		write(post, policies+"/test", "test-policy", "Say how a login would be decided, with a draft policy or without", domainReads, api.PolicyTest{}, api.PolicyTested{}, testPolicy),
		long(write(post, policies+"/preview", "preview-policy", "Say what a policy, its change or its removal would have done to recorded logins", domainReads, api.PolicyPreview{}, api.PolicyPreviewed{}, previewPolicy), api.PolicyPreviewLine{}),
		write(post, policies+"/migrate", "migrate-policies", "Make policies of the settings of former days", forDomain, api.Migration{}, api.Migrated{}, migratePolicies, revertAfter),
		get(policy, "get-policy", "Show an access policy", domainReads, api.Policy{}, getPolicy),
		write(put, policy, "put-policy", "Make or replace an access policy", forDomain, api.Policy{}, api.Policy{}, putPolicy, revertAfter),
		write(patch, policy, "patch-policy", "Change an access policy", forDomain, api.Policy{}, api.Policy{}, patchPolicy, revertAfter),
		remove(policy, "delete-policy", "Remove an access policy", forDomain, deletePolicy, revertAfter),
		write(post, policy+"/test", "test-stored-policy", "Say how a login would be decided, and what a policy has to do with it", domainReads, api.PolicyTest{}, api.PolicyTested{}, testStoredPolicy),
		get(blocks, "list-ip-blocks", "List the addresses that a domain refuses", domainReads, api.List[api.IPBlock]{}, listBlocks, "limit", "cursor"),
		write(post, blocks, "create-ip-block", "Refuse an address or a range for a whole domain", forDomain, api.IPBlock{}, api.IPBlock{}, createBlock, revertAfter),
		remove(blocks+"/{id}", "delete-ip-block", "Let an address in again", forDomain, deleteBlock, revertAfter),

		get(reverts, "list-reverts", "List the changes that undo themselves unless they are confirmed, the next one first", domainReads, api.List[api.Revert]{}, listReverts, "limit", "cursor"),
		get(reverts+"/{id}", "get-revert", "Show a change that undoes itself unless it is confirmed", domainReads, api.Revert{}, getRevert),
		write(post, reverts+"/{id}/confirm", "confirm-revert", "Keep a change: it does not undo itself any more", forDomain, nil, api.Revert{}, confirmRevert),

		get(departments, "list-departments", "List a domain's departments", domainReads, api.List[api.Department]{}, listDepartments, "limit", "cursor"),
		get(department, "get-department", "Show a department", domainReads, api.Department{}, getDepartment),
		write(put, department, "put-department", "Make a department, with those above it that are missing", forDomain, api.Department{}, api.Department{}, putDepartment),
		write(patch, department, "patch-department", "Change or rename a department", forDomain, api.Department{}, api.Department{}, patchDepartment),
		remove(department, "delete-department", "Remove a department that nothing names", forDomain, deleteDepartment),

		get(accounts, "list-accounts", "List a domain's accounts that have a record", domainReads, api.List[api.Account]{}, listAccounts, "limit", "cursor"),
		long(write(post, accounts+"/batch", "batch-accounts", "Change many accounts at once", forDomain, api.Batch{}, api.BatchResult{}, batchAccounts, "resume"), api.BatchLine{}),
		csv(write(post, accounts+"/import", "import-accounts", "Create and change accounts from a file", forDomain, "", api.ImportResult{}, importAccounts, "create_departments")),
		get(account, "get-account", "Show an account's record", accountReads, api.Account{}, getAccount),
		write(put, account, "put-account", "Create or replace an account's record", forDomain, api.Account{}, api.Account{}, putAccount),
		creates(write(patch, account, "patch-account", "Change an account, or create its record", forDomain|forSelf, api.Account{}, api.Account{}, patchAccount, "create")),
		remove(account, "delete-account", "Forget an account's record and secrets", forDomain, deleteAccount),
		get(account+"/effective", "get-effective", "Show every setting of an account with what set it", accountReads, api.Effective{}, getEffective),
		write(put, account+"/mailbox-password", "put-mailbox-password", "Set the mailbox password kept here", forDomain, api.MailboxPassword{}, api.MailboxPasswordSet{}, putMailboxPassword),

		get(secures, "list-secure-passwords", "List an account's live secure passwords", accountReads, api.List[api.SecurePassword]{}, listSecurePasswords, "limit", "cursor"),
		write(post, secures, "create-secure-password", "Make a secure password, shown this once", forDomain|forSelf, api.NewSecurePassword{}, api.CreatedSecurePassword{}, createSecurePassword, "create"),
		get(secure, "get-secure-password", "Show a secure password, without the secret", accountReads, api.SecurePassword{}, getSecurePassword),
		write(patch, secure, "patch-secure-password", "Change a secure password's label", forDomain|forSelf, api.SecurePassword{}, api.SecurePassword{}, patchSecurePassword),
		remove(secure, "delete-secure-password", "Revoke a secure password", forDomain|forSelf, deleteSecurePassword),

		get(domain+"/logins", "list-logins", "List a domain's login records, newest first", accountReads, api.List[api.LoginRecord]{}, listLogins,
			"account", "ip", "client", "outcome", "reason", "policy", "since", "until", "limit", "cursor"),
		get(domain+"/logins/{id}", "get-login", "Show a login record", accountReads, api.LoginRecord{}, getLogin),
		get(domain+"/logins/{id}/explain", "explain-login", "Say how a recorded login would be decided by today's rules, and why", domainReads, api.ExplainedLogin{}, explainLogin),
		get("/v1/audit", "list-audit", "List administrative changes and credential events, newest first", domainReads, api.List[api.AuditEntry]{}, listAudit, "domain", "since", "limit", "cursor"),

		get(types, "list-client-types", "List the client types that have evidence", forRead, api.List[api.ClientType]{}, listClientTypes, "limit", "cursor"),
		get(types+"/{type}", "get-client-type", "Show a client type", forRead, api.ClientType{}, getClientType),
		write(put, types+"/{type}", "put-client-type", "Say what proves a client type", forAdmin, api.ClientType{}, api.ClientType{}, putClientType),
		remove(types+"/{type}", "delete-client-type", "Forget what proves a client type", forAdmin, deleteClientType),

		get(keys, "list-keys", "List the API's keys, without the keys", domainReads, api.List[api.Key]{}, listKeys, "limit", "cursor"),
		write(post, keys, "create-key", "Make a key, shown this once", forDomain, api.NewKey{}, api.CreatedKey{}, createKey),
		remove(keys+"/{id}", "delete-key", "Revoke a key", forDomain, deleteKey),

		always(get(regions, "get-regions", "Show the database of regions", domainReads, api.RegionStatus{}, getRegions)),
		get(regions+"/codes", "list-regions", "List the regions that policies can name", domainReads, api.List[api.Region]{}, listRegions, "limit", "cursor"),
		get(regions+"/{ip}", "get-region", "Tell the region of an address", domainReads, api.AddressRegion{}, getRegion),

		always(get("/v1/store", "get-store", "Show how the daemon and its store get on", forRead, api.StoreStatus{}, getStore)),
		always(write(post, "/v1/store/adopt", "adopt-store", "Believe the store that answers now, whatever it was before", forAdmin, nil, api.StoreStatus{}, adoptStore)),
		always(write(post, "/v1/login", "login", "Decide a login", forLogin, api.Login{}, access.Decision{}, nil)),

		get("/livez", "livez", "Whether the daemon runs", forAnyone, api.Health{}, getLive),
		readiness(get("/readyz", "readyz", "Whether decisions are possible", forAnyone, api.Health{}, getReady)),
		get("/metrics", "metrics", "Metrics in Prometheus' text format", forAnyone, "", getMetrics),
		get("/openapi.json", "openapi", "This document", forAnyone, map[string]any{}, getOpenAPI),
	}
}

// parameter is the table of all parameters.
func parameter(name string) rest.Param {
	switch name {
	case "limit":
		return rest.Param{Doc: "Items of one page: 1 to 1000, 100 when left out.", Kind: rest.Limit}
	case "cursor":
		return rest.Param{Doc: "next of an earlier page.", Kind: rest.Text}
	case "dry_run":
		return rest.Param{Doc: "Answer what would happen, and change nothing.", Kind: rest.Flag}
	case "confirm":
		return rest.Param{Doc: "The change is meant, although it would be refused without being asked twice: needed to delete a domain or an account, to lock people out, to apply a document that removes accounts with secrets or lifts suspensions, and to replace a suspended account by a record that does not say suspended. A pending revert of what is changed ends.", Kind: rest.Flag}
	case "revert_after":
		return rest.Param{Doc: "Make the change, and undo it after so long unless it is confirmed: a span such as 10m, 1s to 168h.", Kind: rest.Span,
			Header: "Revert", HeaderDoc: "With revert_after: the path of the pending revert; POST to /confirm below it keeps the change."}
	case "accounts":
		return rest.Param{Doc: "false leaves the accounts out.", Kind: rest.Flag}
	case "create_departments":
		return rest.Param{Doc: "Make the departments that the file names and that are missing.", Kind: rest.Flag}
	case "create":
		return rest.Param{Doc: "Create the account if it has no record, where the accounts of its domain are listed.", Kind: rest.Flag}
	case "resume":
		return rest.Param{Doc: "cursor of a batch that was interrupted: goes on behind the last account done. The body and dry_run must be the same. Beginning anew does no harm either.", Kind: rest.Text}
	case "account":
		return rest.Param{Doc: "Records of this account only.", Kind: rest.Text}
	case "ip":
		return rest.Param{Doc: "Records of logins from this address only.", Kind: rest.IP}
	case "client":
		return rest.Param{Doc: "Records of logins by this client type only.", Kind: rest.Text}
	case "outcome":
		return rest.Param{Doc: "Records with this outcome only.", Enum: outcomes()}
	case "reason":
		return rest.Param{Doc: "Records with this reason code only.", Kind: rest.Text}
	case "policy":
		return rest.Param{Doc: "Records in which this policy refused, or would have, only.", Kind: rest.Text}
	case "since":
		return rest.Param{Doc: "Not older than this.", Kind: rest.Time}
	case "until":
		return rest.Param{Doc: "Not newer than this.", Kind: rest.Time}
	case "domain":
		return rest.Param{Doc: "Entries of this domain only.", Kind: rest.Text}
	default:
		return rest.Param{}
	}
}

func outcomes() []string {
	return []string{access.Allow.String(), access.Deny.String(), access.Next.String(), access.TempFail.String()}
}
