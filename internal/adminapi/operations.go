package adminapi

import (
	"net/http"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/mail"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
)

// operation is one method of one path.
type operation struct {
	rest.Operation
	roles  admin.Roles // in addition to admin
	public bool        // needs no key
	serve  serveFunc
	ends   bool // it may end open sessions
	always bool // available before the store is loaded
}

// serveFunc executes an operation. The answer is valid only without an error.
type serveFunc = func(*call) (*answer, error)

// operations returns the table of all operations.
func operations() []operation {
	get := func(path, id, summary string, r admin.Roles, out any, f serveFunc, query ...string) operation {
		return operation{Operation: rest.Operation{Method: http.MethodGet, Path: path, ID: id, Summary: summary, Out: out, Query: query}, roles: r, serve: f}
	}
	write := func(method, path, id, summary string, r admin.Roles, in, out any, f serveFunc, query ...string) operation {
		return operation{Operation: rest.Operation{Method: method, Path: path, ID: id, Summary: summary, In: in, Out: out, Query: query}, roles: r, serve: f}
	}
	remove := func(path, id, summary string, r admin.Roles, f serveFunc, query ...string) operation {
		return operation{Operation: rest.Operation{Method: http.MethodDelete, Path: path, ID: id, Summary: summary, Query: query}, roles: r, serve: f}
	}
	always := func(op operation) operation {
		op.always = true
		return op
	}
	ends := func(op operation) operation {
		op.ends = true
		op.Description = "If open sessions end because of it, the response has the header Sessions, and a member sessions if it has a body."
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
	public := func(op operation) operation {
		op.public = true
		return op
	}
	readiness := func(op operation) operation {
		op.Unavailable = true
		return op
	}
	csv := func(op operation) operation {
		op.InDoc = "A header line names the columns: address, departments, aliases (several separated by semicolons), imap, pop3, smtp, sieve, " +
			"suspended (true or false, empty to inherit), preset, secure_passwords. Settings without a column are not changed. At most 16 MiB and 100 000 accounts."
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
		factorsPath = account + "/second-factors"
		factorPath  = factorsPath + "/{id}"
		types       = "/v1/client-types"
		keys        = "/v1/keys"
		regions     = "/v1/regions"
		mailRules   = domain + "/mail-rules"
		mailRule    = mailRules + "/{id}"
		groupPath   = "/v1/groups/{address}"

		revertAfter = "revert_after"

		domainReads  = admin.ForRead | admin.ForDomain
		accountReads = admin.ForRead | admin.ForDomain | admin.ForSelf
	)
	return []operation{
		get(domains, "list-domains", "List the managed domains", domainReads, api.List[api.Domain]{}, listDomains, "limit", "cursor"),
		write(post, domains, "create-domain", "Add a domain", admin.ForAdmin, api.NewDomain{}, api.Domain{}, createDomain),
		get(domain, "get-domain", "Show a domain", domainReads, api.Domain{}, getDomain),
		ends(write(patch, domain, "patch-domain", "Change a domain", admin.ForDomain, api.Domain{}, api.Domain{}, patchDomain)),
		ends(remove(domain, "delete-domain", "Delete a domain with its accounts, policies and records", admin.ForAdmin, deleteDomain)),
		get(domain+"/export", "export-domain", "Export the settings of a domain as one document", domainReads, api.DomainDocument{}, exportDomain, "accounts"),
		ends(large(write(post, domain+"/apply", "apply-domain", "Apply a document to a domain and show the changes", admin.ForDomain, api.DomainDocument{}, api.Plan{}, applyDomain, revertAfter))),
		get(third, "get-third-party-access", "Show whether third-party clients are blocked", domainReads, api.ThirdPartyAccess{}, getThirdParty),
		ends(write(put, third, "put-third-party-access", "Block or allow third-party clients", admin.ForDomain, api.ThirdPartyAccess{}, api.ThirdPartyAccess{}, putThirdParty, revertAfter)),
		get(enforcement, "get-secure-password-policy", "Show for whom secure passwords are enforced", domainReads, api.SecurePasswordPolicy{}, getSecurePolicy),
		ends(write(put, enforcement, "put-secure-password-policy", "Enforce secure passwords, or stop enforcing them", admin.ForDomain, api.SecurePasswordPolicy{}, api.SecurePasswordPolicy{}, putSecurePolicy)),

		get(enforcement+"/progress", "get-enforcement-progress", "Show who still uses the mailbox password in third-party clients", domainReads, api.EnforcementProgress{}, getEnforcementProgress),

		get(policies, "list-policies", "List a domain's access policies, oldest first", domainReads, api.List[api.Policy]{}, listPolicies, "limit", "cursor"),
		ends(write(post, policies, "create-policy", "Create an access policy", admin.ForDomain, api.Policy{}, api.Policy{}, createPolicy, revertAfter)),
		write(post, policies+"/test", "test-policy", "Evaluate a hypothetical login, with a draft policy or without", domainReads, api.PolicyTest{}, api.PolicyTested{}, testPolicy),
		long(write(post, policies+"/preview", "preview-policy", "Evaluate recorded logins with a policy added, changed or removed", domainReads, api.PolicyPreview{}, api.PolicyPreviewed{}, previewPolicy), api.PolicyPreviewLine{}),
		ends(write(post, policies+"/migrate", "migrate-policies", "Convert settings of an earlier system to policies", admin.ForDomain, api.Migration{}, api.Migrated{}, migratePolicies, revertAfter)),
		get(policy, "get-policy", "Show an access policy", domainReads, api.Policy{}, getPolicy),
		ends(write(put, policy, "put-policy", "Create or replace an access policy", admin.ForDomain, api.Policy{}, api.Policy{}, putPolicy, revertAfter)),
		ends(write(patch, policy, "patch-policy", "Change an access policy", admin.ForDomain, api.Policy{}, api.Policy{}, patchPolicy, revertAfter)),
		ends(remove(policy, "delete-policy", "Delete an access policy", admin.ForDomain, deletePolicy, revertAfter)),
		write(post, policy+"/test", "test-stored-policy", "Evaluate a hypothetical login and show the result of one policy", domainReads, api.PolicyTest{}, api.PolicyTested{}, testStoredPolicy),
		get(blocks, "list-ip-blocks", "List the blocked addresses of a domain", domainReads, api.List[api.IPBlock]{}, listBlocks, "limit", "cursor"),
		ends(write(post, blocks, "create-ip-block", "Block an IP address or range", admin.ForDomain, api.IPBlock{}, api.IPBlock{}, createBlock, revertAfter)),
		ends(remove(blocks+"/{id}", "delete-ip-block", "Unblock an IP address or range", admin.ForDomain, deleteBlock, revertAfter)),

		get(reverts, "list-reverts", "List pending reverts by due time", domainReads, api.List[api.Revert]{}, listReverts, "limit", "cursor"),
		get(reverts+"/{id}", "get-revert", "Show a pending revert", domainReads, api.Revert{}, getRevert),
		write(post, reverts+"/{id}/confirm", "confirm-revert", "Confirm a change: cancel its pending revert", admin.ForDomain, nil, api.Revert{}, confirmRevert),

		get(departments, "list-departments", "List a domain's departments", domainReads, api.List[api.Department]{}, listDepartments, "limit", "cursor"),
		get(department, "get-department", "Show a department", domainReads, api.Department{}, getDepartment),
		write(put, department, "put-department", "Create or replace a department, and create missing parents", admin.ForDomain, api.Department{}, api.Department{}, putDepartment),
		ends(write(patch, department, "patch-department", "Change or rename a department", admin.ForDomain, api.Department{}, api.Department{}, patchDepartment)),
		remove(department, "delete-department", "Delete a department that is not in use", admin.ForDomain, deleteDepartment),

		get(accounts, "list-accounts", "List the accounts of a domain that have a record", domainReads, api.List[api.Account]{}, listAccounts, "limit", "cursor"),
		long(write(post, accounts+"/batch", "batch-accounts", "Change many accounts at once", admin.ForDomain, api.Batch{}, api.BatchResult{}, batchAccounts, "resume"), api.BatchLine{}),
		ends(csv(write(post, accounts+"/import", "import-accounts", "Import accounts from a CSV file", admin.ForDomain, "", api.ImportResult{}, importAccounts, "create_departments"))),
		get(account, "get-account", "Show an account's record", accountReads, api.Account{}, getAccount),
		ends(write(put, account, "put-account", "Create or replace an account's record", admin.ForDomain, api.Account{}, api.Account{}, putAccount)),
		ends(creates(write(patch, account, "patch-account", "Change an account, or create its record", admin.ForDomain|admin.ForSelf, api.Account{}, api.Account{}, patchAccount, "create"))),
		ends(remove(account, "delete-account", "Delete an account's record and secrets", admin.ForDomain, deleteAccount)),
		get(account+"/effective", "get-effective", "Show the effective settings of an account and their origin", accountReads, api.Effective{}, getEffective),
		ends(write(put, account+"/mailbox-password", "put-mailbox-password", "Set an account's mailbox password", admin.ForDomain, api.MailboxPassword{}, api.MailboxPasswordSet{}, putMailboxPassword)),

		ends(write(post, account+"/secure", "secure-account", "Secure an account that somebody else has used: block, revoke, reset, switch off, end sessions", admin.ForDomain, api.Secure{}, api.Secured{}, secureAccount)),

		get(account+"/forwards", "list-forwards", "List what sends an account's mail on, files, answers or deletes it", domainReads, api.Forwards{}, listForwards),

		get(secures, "list-secure-passwords", "List an account's live secure passwords", accountReads, api.List[api.SecurePassword]{}, listSecurePasswords, "limit", "cursor"),
		write(post, secures, "create-secure-password", "Create a secure password; only this response contains it", admin.ForDomain|admin.ForSelf, api.NewSecurePassword{}, api.CreatedSecurePassword{}, createSecurePassword, "create"),
		get(secure, "get-secure-password", "Show a secure password, without the secret", accountReads, api.SecurePassword{}, getSecurePassword),
		ends(write(patch, secure, "patch-secure-password", "Change a secure password's label or bounds", admin.ForDomain|admin.ForSelf, api.SecurePassword{}, api.SecurePassword{}, patchSecurePassword)),
		ends(remove(secure, "delete-secure-password", "Revoke a secure password", admin.ForDomain|admin.ForSelf, deleteSecurePassword)),

		get(factorsPath, "list-second-factors", "List an account's second factors, without their secrets", accountReads, api.List[api.Factor]{}, listFactors),
		write(post, factorsPath+"/totp", "create-totp", "Add an authenticator app; only this response has its secret", admin.ForDomain|admin.ForSelf, api.NewFactor{}, api.CreatedFactor{}, createTOTP),
		write(post, factorsPath+"/passkeys", "create-passkey", "Begin to register a passkey", admin.ForDomain|admin.ForSelf, api.NewFactor{}, api.CreatedFactor{}, createPasskey),
		write(post, factorsPath+"/recovery-codes", "create-recovery-codes", "Replace the recovery codes; only this response has them", admin.ForDomain|admin.ForSelf, nil, api.CreatedFactor{}, createRecoveryCodes),
		write(post, factorsPath+"/mail", "create-mail-factor", "Add an address that codes are sent to", admin.ForDomain|admin.ForSelf, api.NewFactor{}, api.CreatedFactor{}, createMailFactor),
		write(post, factorsPath+"/sms", "create-sms-factor", "Add a telephone that codes are sent to", admin.ForDomain|admin.ForSelf, api.NewFactor{}, api.CreatedFactor{}, createSMSFactor),
		write(post, factorsPath+"/challenge", "challenge-passkey", "Begin a proof with a passkey", admin.ForDomain|admin.ForSelf, nil, api.FactorChallenge{}, challengePasskey),
		write(post, factorsPath+"/challenge/answer", "answer-passkey", "End a proof with a passkey: the response is accepted once as otp", admin.ForDomain|admin.ForSelf, api.PasskeyProof{}, api.FactorAnswer{}, answerPasskey),
		write(post, factorPath+"/confirm", "confirm-second-factor", "Confirm a new second factor with one of its codes", admin.ForDomain|admin.ForSelf, api.FactorProof{}, api.Factor{}, confirmFactor),
		write(post, factorPath+"/send", "send-code", "Send a code to the address or number of a second factor", admin.ForDomain|admin.ForSelf, nil, api.SentCode{}, sendCode),
		remove(factorPath, "delete-second-factor", "Delete a second factor", admin.ForDomain|admin.ForSelf, deleteFactor),
		remove(factorsPath, "reset-second-factors", "Delete all second factors of an account", admin.ForDomain, resetFactors),

		get(domain+"/logins", "list-logins", "List a domain's login records, newest first", accountReads, api.List[api.LoginRecord]{}, listLogins,
			"account", "ip", "network", "region", "client", "device", "abnormal", "outcome", "reason", "policy", "since", "until", "limit", "cursor"),
		get(domain+"/logins/export", "export-logins", "Export a domain's login records, oldest first, as CSV, JSON Lines or syslog messages", accountReads, "", exportLogins,
			"format", "account", "ip", "network", "region", "client", "device", "abnormal", "outcome", "reason", "policy", "since", "until"),
		get(domain+"/logins/{id}", "get-login", "Show a login record", accountReads, api.LoginRecord{}, getLogin),
		get(domain+"/logins/{id}/explain", "explain-login", "Evaluate a recorded login by the current rules and explain the decision", domainReads, api.ExplainedLogin{}, explainLogin),
		write(post, domain+"/logins/{id}/it-was-me", "confirm-login", "Mark a login as its account's own: its network, region, device and client are usual from now on", admin.ForDomain|admin.ForSelf, nil, api.LoginRecord{}, confirmLogin),
		long(get(domain+"/inspection", "inspect-domain", "Find unused access, and rules without end or effect", domainReads, api.Inspection{}, inspectDomain, "account", "days", "forwards", "limit", "cursor"), api.InspectionLine{}),
		get(domain+"/inspection/report", "get-inspection-report", "Show what the latest inspection on the domain's schedule found", domainReads, api.InspectionReport{}, inspectionReport),
		ends(write(post, domain+"/inspection/reclaim", "reclaim", "Carry out the proposals of findings, or undo that", admin.ForDomain, api.Reclaim{}, api.Reclaimed{}, reclaimDomain)),
		get(domain+"/sessions", "list-sessions", "List the open sessions of a domain", domainReads, api.Sessions{}, listSessions),
		get(account+"/sessions", "list-account-sessions", "List the open sessions of an account", accountReads, api.Sessions{}, listAccountSessions),
		remove("/v1/sessions/{id}", "end-session", "End an open session, and those that Dovecot does not distinguish from it", admin.ForDomain, endSession),
		get(domain+"/held", "list-held", "List the messages that wait for approval, oldest first", domainReads, api.List[api.Held]{}, listHeld, "limit", "cursor"),
		get("/v1/held/{id}", "get-held", "Show a message that waits for approval", domainReads, api.Held{}, getHeld),
		write(post, "/v1/held/{id}/approve", "approve-held", "Release a held message", admin.ForDomain, nil, api.Held{}, approveHeld),
		write(post, "/v1/held/{id}/reject", "reject-held", "Delete a held message and notify its sender", admin.ForDomain, api.Rejection{}, api.Held{}, rejectHeld),
		get(mailRules, "list-mail-rules", "List the mail rules of a domain", domainReads, api.List[api.MailRule]{}, listMailRules, "limit", "cursor"),
		write(post, mailRules, "create-mail-rule", "Create a mail rule", admin.ForDomain, api.MailRule{}, api.MailRule{}, createMailRule),
		write(post, mailRules+"/test", "test-mail", "Evaluate a message that nobody sent", domainReads, api.MailRuleTest{}, api.MailDecision{}, testMail),
		write(post, mailRules+"/preview", "preview-mail-rule", "Evaluate a draft over recorded messages", domainReads, api.MailRulePreview{}, api.MailRulePreviewed{}, previewMailRule),
		get(mailRule, "get-mail-rule", "Show a mail rule", domainReads, api.MailRule{}, getMailRule),
		write(put, mailRule, "put-mail-rule", "Create or replace a mail rule", admin.ForDomain, api.MailRule{}, api.MailRule{}, putMailRule),
		write(patch, mailRule, "patch-mail-rule", "Change a mail rule", admin.ForDomain, api.MailRule{}, api.MailRule{}, patchMailRule),
		remove(mailRule, "delete-mail-rule", "Delete a mail rule", admin.ForDomain, deleteMailRule),
		write(post, mailRule+"/test", "test-mail-rule", "Evaluate a message that nobody sent, with the result of one rule", domainReads, api.MailRuleTest{}, api.MailDecision{}, testMail),
		get(domain+"/groups", "list-groups", "List the groups of a domain", domainReads, api.List[api.Group]{}, listGroups, "limit", "cursor"),
		get(groupPath, "get-group", "Show a group", domainReads, api.Group{}, getGroup),
		write(put, groupPath, "put-group", "Create or replace a group", admin.ForDomain, api.Group{}, api.Group{}, putGroup),
		remove(groupPath, "delete-group", "Delete a group", admin.ForDomain, deleteGroup),
		get(domain+"/suspensions", "list-suspensions", "List the credentials that reached a sending limit and are suspended", domainReads, api.List[api.Suspension]{}, listSuspensions, "limit", "cursor"),
		remove(domain+"/suspensions/{id}", "delete-suspension", "Lift the suspension of a credential", admin.ForDomain, deleteSuspension),
		write(post, domain+"/withdraw", "withdraw", "Delete what a credential sent from the queue and from mailboxes", admin.ForDomain, api.Withdrawal{}, api.Withdrawn{}, withdrawMessages),
		get(domain+"/messages", "list-messages", "List a domain's message records, newest first", accountReads, api.List[api.MessageRecord]{}, listMessages,
			"account", "credential", "queue_id", "message_id", "verdict", "rule", "since", "until", "limit", "cursor"),
		get(domain+"/messages/explain", "explain-message", "Explain a recorded message by its queue id or Message-ID", domainReads, api.ExplainedMessages{}, explainMessages, "queue_id", "message_id"),
		get("/v1/throttle", "list-throttle", "List the accounts and addresses that are throttled after wrong secrets", domainReads, api.Throttle{}, listThrottle, "limit", "cursor"),
		remove("/v1/throttle/{subject}", "lift-throttle", "Forget the wrong secrets of an account or an address, on all nodes", admin.ForDomain, liftThrottle),
		get("/v1/audit", "list-audit", "List administrative changes and credential events, newest first", domainReads, api.List[api.AuditEntry]{}, listAudit, "domain", "since", "limit", "cursor"),
		get("/v1/audit/verify", "verify-audit", "Verify that no audit entry was removed, changed, reordered or cut off", admin.ForRead, api.AuditVerification{}, verifyAudit, "anchor"),
		long(get("/v1/audit/export", "export-audit", "Export the audit with the hashes that verify it; only lines (application/x-ndjson) contain the entries", admin.ForRead, api.AuditExport{}, exportAudit), api.AuditExportLine{}),

		get(types, "list-client-types", "List the client types that have evidence", admin.ForRead, api.List[api.ClientType]{}, listClientTypes, "limit", "cursor"),
		get(types+"/{type}", "get-client-type", "Show a client type", admin.ForRead, api.ClientType{}, getClientType),
		write(put, types+"/{type}", "put-client-type", "Create or replace the evidence of a client type", admin.ForAdmin, api.ClientType{}, api.ClientType{}, putClientType),
		remove(types+"/{type}", "delete-client-type", "Delete the evidence of a client type", admin.ForAdmin, deleteClientType),

		get(keys, "list-keys", "List the API keys, without their secrets", domainReads, api.List[api.Key]{}, listKeys, "limit", "cursor"),
		write(post, keys, "create-key", "Create an API key; only this response contains it", admin.ForDomain, api.NewKey{}, api.CreatedKey{}, createKey),
		remove(keys+"/{id}", "delete-key", "Revoke an API key", admin.ForDomain, deleteKey),

		always(get(regions, "get-regions", "Show the databases of regions and networks", domainReads, api.RegionStatus{}, getRegions)),
		get(regions+"/codes", "list-regions", "List the regions that policies can select", domainReads, api.List[api.Region]{}, listRegions, "limit", "cursor"),
		get(regions+"/{ip}", "get-region", "Look up the region of an address", domainReads, api.AddressRegion{}, getRegion),

		always(get("/v1/store", "get-store", "Show store and replication status", admin.ForRead, api.StoreStatus{}, getStore)),
		long(write(post, "/v1/store/backup", "backup-store", "Read all documents of the store; only lines (application/x-ndjson) contain them", admin.ForAdmin, nil, api.StoreBackup{}, backupStore), api.StoreBackupLine{}),
		large(write(post, "/v1/store/restore", "restore-store", "Restore documents of a backup into an empty store", admin.ForAdmin, api.StoreRestore{}, api.StoreRestored{}, restoreStore)),
		always(write(post, "/v1/store/adopt", "adopt-store", "Accept the present store in place of the known one", admin.ForAdmin, nil, api.StoreStatus{}, adoptStore)),
		always(write(post, "/v1/store/repair", "repair-store", "Replace damaged parts of the store by the documents in this daemon's memory", admin.ForAdmin, nil, api.StoreRepair{}, repairStore)),
		always(write(post, "/v1/login", "login", "Decide a login", admin.ForLogin, api.Login{}, api.Decision{}, nil)),

		public(get("/livez", "livez", "Report that the daemon runs", admin.ForAdmin, api.Health{}, getLive)),
		public(readiness(get("/readyz", "readyz", "Report whether logins can be decided", admin.ForAdmin, api.Health{}, getReady))),
		public(get("/metrics", "metrics", "Report metrics in the Prometheus text format", admin.ForAdmin, "", getMetrics)),
		public(get("/openapi.json", "openapi", "Show this document", admin.ForAdmin, map[string]any{}, getOpenAPI)),
	}
}

// parameter describes a query parameter.
func parameter(name string) rest.Param {
	switch name {
	case "limit":
		return rest.Param{Doc: "Number of items per page: 1 to 1000, by default 100.", Kind: rest.Limit}
	case "cursor":
		return rest.Param{Doc: "The next of the previous page.", Kind: rest.Text}
	case "dry_run":
		return rest.Param{Doc: "Validate the request and show the result, without changing anything.", Kind: rest.Flag}
	case "confirm":
		return rest.Param{Doc: "Confirm a change that would otherwise be refused: deleting a domain or an account, locking people out, applying a document that removes accounts with secrets or lifts suspensions, or replacing a suspended account by a record without suspended. Pending reverts of what is changed end.", Kind: rest.Flag}
	case "revert_after":
		return rest.Param{
			Doc: "Revert the change after this time unless it is confirmed: a duration such as 10m, from 1s to 168h.", Kind: rest.Span,
			Header: "Revert", HeaderDoc: "With revert_after: the path of the pending revert; POST to /confirm below it keeps the change.",
		}
	case "accounts":
		return rest.Param{Doc: "false omits the accounts.", Kind: rest.Flag}
	case "create_departments":
		return rest.Param{Doc: "Create the departments that the file names and that do not exist.", Kind: rest.Flag}
	case "create":
		return rest.Param{Doc: "Create the account if it has no record, where the accounts of its domain are listed.", Kind: rest.Flag}
	case "resume":
		return rest.Param{Doc: "The cursor of an interrupted batch: continue after the last account that was changed. Body and dry_run must be the same. Starting over is safe too.", Kind: rest.Text}
	case "account":
		return rest.Param{Doc: "Only records of this account.", Kind: rest.Text}
	case "ip":
		return rest.Param{Doc: "Only records of logins from this address.", Kind: rest.IP}
	case "client":
		return rest.Param{Doc: "Only records of logins by this client type.", Kind: rest.Text}
	case "outcome":
		return rest.Param{Doc: "Only records with this outcome.", Enum: api.Outcomes()}
	case "reason":
		return rest.Param{Doc: "Only records with this reason code.", Enum: api.Reasons()}
	case "policy":
		return rest.Param{Doc: "Only records of logins that this policy refused, or would have refused in report mode.", Kind: rest.Text}
	case "credential":
		return rest.Param{Doc: "Only messages of sessions with this credential: a secure password's id, or mailbox.", Kind: rest.Text}
	case "queue_id":
		return rest.Param{Doc: "Only messages with this queue id of Postfix.", Kind: rest.Text}
	case "message_id":
		return rest.Param{Doc: "Only messages with this Message-ID, angle brackets included.", Kind: rest.Text}
	case "verdict":
		return rest.Param{Doc: "Only messages with this verdict.", Enum: mail.Verdicts()}
	case "rule":
		return rest.Param{Doc: "Only messages whose record names this rule or group.", Kind: rest.Text}
	case "since":
		return rest.Param{Doc: "Only records since this time.", Kind: rest.Time}
	case "until":
		return rest.Param{Doc: "Only records until this time.", Kind: rest.Time}
	case "network":
		return rest.Param{Doc: "Only records of logins from this network, such as 203.0.113.0/24.", Kind: rest.Text}
	case "region":
		return rest.Param{Doc: "Only records of logins from this region.", Kind: rest.Text}
	case "device":
		return rest.Param{Doc: "Only records of logins with this secure password, by id or label, or with this IMAP ID.", Kind: rest.Text}
	case "abnormal":
		return rest.Param{Doc: "true: only records of abnormal logins.", Kind: rest.Flag}
	case "format":
		return rest.Param{Doc: "csv, jsonl (the default) or syslog (RFC 5424).", Enum: []string{"csv", "jsonl", "syslog"}}
	case "days":
		return rest.Param{Doc: "Days without use after which access counts as unused: 0 to 3650, by default 90. 0: only access that was never used.", Kind: rest.Text}
	case "forwards":
		return rest.Param{Doc: "Also look up what forwards mail of the domain's accounts to outside: some 20 accounts a second. With account, that is always looked up.", Kind: rest.Flag}
	case "anchor":
		return rest.Param{Doc: "The anchor of an earlier verification: the chains must still pass through it.", Kind: rest.Text}
	case "domain":
		return rest.Param{Doc: "Only entries of this domain.", Kind: rest.Text}
	default:
		return rest.Param{}
	}
}
