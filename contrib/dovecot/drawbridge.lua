-- Drawbridge's passdb for Dovecot 2.4, and for 2.3 without an authentication cache.
--
-- It asks drawbridged (POST /v1/login) about each login and never verifies anything itself. What is
-- not answered, not understood or late is a temporary failure: nobody is admitted by mistake.
-- See 2.4/drawbridge.conf.ext for where it goes. Requests block one auth-worker each; Dovecot runs
-- up to 30 of them by default.
--
-- EDIT these when drawbridged listens elsewhere (login.listen), or its key is in another file. The
-- key is login.key_file's content, in one line; the user of Dovecot's auth-worker must read it.
local url = "http://127.0.0.1:8481/v1/login"
local key_file = "/etc/dovecot/drawbridge.key"

-- Dovecot 2.4 lists each session with these names, and ends one by them: drawbridged by the session's
-- id, an administrator one device's by "doveadm kick -f user_credential ID". EDIT them to "" when
-- "userdb prefetch" stands before another userdb: it would take such a field for a user's whole data.
-- Sessions are then told apart by user and address only.
local session_field = "userdb_user_session"
local credential_field = "userdb_user_credential"

-- Behind the site's own passdb: see drawbridge-verified.lua. EXTERNAL and master users also come with a
-- password that Dovecot has verified, so that nothing but this says so.
local verified = drawbridge_verified == true

-- Postfix gives up after ten seconds, and Dovecot 2.4 waits two to three of them before it reports a
-- temporary failure (auth_internal_failure_delay).
local request_timeout, connect_timeout = 6000, 2000 -- milliseconds

-- BEGIN words: the answer to each outcome, by who asks. A test keeps it equal to checkpassword's.
local words = {
  proxy = { allow = "ok", deny = "mismatch", deny_text = "nologin", next = "next", tempfail = "internal" },
  dovecot = { allow = "ok", deny = "mismatch", deny_text = "mismatch", next = "next", tempfail = "internal" },
  sasl = { allow = "ok", deny = "mismatch", deny_text = "mismatch", next = "next", tempfail = "internal" },
  lookup = { allow = "ok", deny = "unknown", deny_text = "unknown", next = "next", tempfail = "internal" },
}
-- END words

local client, key

-- Reading the decision: strict JSON, since a misread answer could admit.

local function json_string(s, at)
  local out, i = {}, at + 1
  while true do
    local c = s:sub(i, i)
    if c == "" or c:byte() < 32 then error("json") end
    if c == '"' then return table.concat(out), i + 1 end
    if c == "\\" then
      local e = s:sub(i + 1, i + 1)
      local plain = ({ ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" })[e]
      if plain then
        out[#out + 1], i = plain, i + 2
      elseif e == "u" then
        local hex = s:match("^%x%x%x%x", i + 2)
        if not hex then error("json") end
        local r = tonumber(hex, 16)
        out[#out + 1], i = (r >= 0xd800 and r < 0xe000) and "?" or utf8.char(r), i + 6
      else
        error("json")
      end
    else
      out[#out + 1], i = c, i + 1
    end
  end
end

local json_value

local function json_members(s, at, closing, object)
  local out, i = {}, s:match("^%s*()", at + 1)
  if s:sub(i, i) == closing then return out, i + 1 end
  while true do
    local name, value
    if object then
      if s:sub(i, i) ~= '"' then error("json") end
      name, i = json_string(s, i)
      i = s:match("^%s*:%s*()", i) or error("json")
      if out[name] ~= nil then error("json") end
    end
    value, i = json_value(s, i)
    out[name or #out + 1] = value
    local sign, after = s:match("^%s*([,%]}])%s*()", i)
    if sign == closing then return out, after end
    if sign ~= "," then error("json") end
    i = after
  end
end

function json_value(s, i)
  local c = s:sub(i, i)
  if c == '"' then return json_string(s, i) end
  if c == "{" then return json_members(s, i, "}", true) end
  if c == "[" then return json_members(s, i, "]", false) end
  for word, value in pairs({ ["true"] = true, ["false"] = false, null = "" }) do
    if s:sub(i, i + #word - 1) == word then return value, i + #word end
  end
  local number = s:match("^-?%d+%.?%d*[eE]?[+-]?%d*", i)
  if not number or not tonumber(number) then error("json") end
  return tonumber(number), i + #number
end

local function json_object(s)
  local at = s:match("^%s*()")
  if s:sub(at, at) ~= "{" then error("json") end
  local v, i = json_value(s, at)
  if not s:match("^%s*$", i) then error("json") end
  return v
end

-- Writing the question.

local function quoted(s)
  return '"' .. s:gsub('[%c"\\]', function(c) return string.format("\\u%04x", c:byte()) end) .. '"'
end

-- Passwords need not be UTF-8, and JSON is.
local function base64(s)
  local letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  return (s:gsub("..?.?", function(three)
    local a, b, c = three:byte(1, 3)
    local n = a * 65536 + (b or 0) * 256 + (c or 0)
    local four = ""
    for i = 3, 0, -1 do
      local d = (n >> (6 * i)) & 63
      four = four .. letters:sub(d + 1, d + 1)
    end
    return four:sub(1, #three + 1) .. ("="):rep(3 - #three)
  end))
end

-- field returns the first of several names that the request has: 2.3 and 2.4 name them differently.
local function field(req, ...)
  for _, name in ipairs({ ... }) do
    local ok, v = pcall(function() return req[name] end)
    if ok and v ~= nil and v ~= "" and type(v) ~= "table" and type(v) ~= "function" then return tostring(v) end
  end
  return ""
end

-- The services that Dovecot itself offers; anybody else, like Postfix, says "secured" of TLS alone.
local own = { imap = true, pop3 = true, sieve = true, submission = true, lmtp = true, doveadm = true }

local function asker(req, service, lookup)
  if lookup then return "lookup" end
  if service == "imap" or service == "pop3" or service == "sieve" then
    -- smtpd_sasl_service may say "imap" too. Only a login process has a session and a local port.
    local port = field(req, "local_port", "lport")
    if field(req, "session") == "" and (port == "" or port == "0") then return "dovecot" end
    return "proxy"
  end
  return own[service] and "dovecot" or "sasl"
end

-- Only OK takes a table. With any other result 2.4 wants nil or a string, and 2.3 a string.
local function say(word, user, decision, changed, session)
  -- NEXT carries no fields. OK with noauthenticate passes the changed name on to the next passdb;
  -- Dovecot refuses the login if there is none.
  if word == "next" and changed then return dovecot.auth.PASSDB_RESULT_OK, { user = user, noauthenticate = "y" } end
  if word == "ok" or word == "nologin" then
    local fields = { user = user }
    if word == "nologin" then
      fields.nologin = "y"
      fields.reason = decision.message:gsub("%c", " "):sub(1, 400)
    else
      if session_field ~= "" and session ~= "" then fields[session_field] = session end
      if credential_field ~= "" and decision.credential_id ~= "" then fields[credential_field] = decision.credential_id end
    end
    return dovecot.auth.PASSDB_RESULT_OK, fields
  end
  return ({
    mismatch = dovecot.auth.PASSDB_RESULT_PASSWORD_MISMATCH,
    unknown = dovecot.auth.PASSDB_RESULT_USER_UNKNOWN,
    next = dovecot.auth.PASSDB_RESULT_NEXT,
  })[word] or dovecot.auth.PASSDB_RESULT_INTERNAL_FAILURE, ""
end

-- ask returns the decision, or raises. typed is the name as the client sent it, "" unless another
-- passdb has verified the password.
local function ask(req, password, lookup, service, typed)
  local master, secured = field(req, "master_user"), field(req, "secured")
  local members = { '"account":' .. quoted(field(req, "user")) }
  local function add(name, value)
    if value ~= "" then members[#members + 1] = quoted(name) .. ":" .. quoted(value:sub(1, 256)) end
  end
  if password ~= "" and master == "" then members[#members + 1] = '"secret_b64":"' .. base64(password) .. '"' end
  add("service", service)
  add("ip", field(req, "remote_ip", "rip"))
  add("real_ip", field(req, "real_remote_ip", "real_rip"))
  add("local_ip", field(req, "local_ip", "lip"))
  local port = tonumber(field(req, "local_port", "lport"))
  if port and port > 0 then members[#members + 1] = string.format('"local_port":%d', port) end
  add("server_name", field(req, "local_name"))
  if secured == "TLS" or (secured == "secured" and not own[service]) then members[#members + 1] = '"tls":true' end
  add("client_cert", field(req, "cert"))
  add("mechanism", field(req, "mechanism", "mech"))
  add("session", field(req, "session"))
  add("master_user", master)
  add("client_id", field(req, "client_id"))
  if lookup then members[#members + 1] = '"lookup":"credentials"' end
  add("typed", typed)

  local target = typed == "" and url or url:gsub("/v1/login$", "/v1/dovecot/verified")
  local request = client:request({ url = target, method = "POST" })
  request:add_header("Authorization", "Bearer " .. key)
  request:add_header("Content-Type", "application/json")
  request:set_payload("{" .. table.concat(members, ",") .. "}")
  local response = request:submit()
  if response:status() ~= 200 then error("drawbridged at " .. url .. " answers status " .. tostring(response:status()), 0) end
  local body = response:payload()
  -- Dovecot passes on what came of an answer that was cut off.
  local whole = #body == tonumber(response:header("Content-Length"))
  local ok, d = pcall(json_object, body)
  if not whole or not ok or type(d.outcome) ~= "string" then error("drawbridged at " .. url .. " answers no decision", 0) end
  for _, name in ipairs({ "message", "user", "credential_id" }) do
    if type(d[name]) ~= "string" then d[name] = "" end
  end
  return d
end

local function decide(req, password, lookup)
  local service = field(req, "protocol", "service")
  if field(req, "login_user") ~= "" and field(req, "master_user") == "" then
    dovecot.i_error("drawbridge: master users are not authenticated here: this passdb must not have master = yes")
    return say("mismatch")
  end
  local user, typed = field(req, "user"), ""
  if verified then
    typed = field(req, "original_user", "orig_user")
    -- The name that Drawbridge has judged: nothing to ask.
    if typed == "" or typed == user or field(req, "master_user") ~= "" then return say("ok", user, { credential_id = "" }, false, "") end
    password = ""
  end
  -- EXTERNAL comes with an empty password: a certificate was verified, and no secret is shown.
  local hidden = lookup or field(req, "mechanism", "mech"):upper() == "EXTERNAL"
  local ok, d = pcall(ask, req, password, hidden, service, typed)
  if not ok then
    dovecot.i_error("drawbridge: " .. tostring(d))
    d = { outcome = "tempfail", message = "", user = "", credential_id = "" }
  end
  local outcome = d.outcome
  if outcome == "deny" and d.message ~= "" then outcome = "deny_text" end
  if outcome == "next" and verified then outcome = "allow" end -- no rule refuses; this passdb is the last
  local final = d.user ~= "" and d.user or user
  return say(words[asker(req, service, lookup)][outcome] or "internal", final, d, final ~= user, verified and "" or field(req, "session"))
end

-- What Dovecot calls.

function script_init()
  local file, why = io.open(key_file, "r")
  if not file then
    dovecot.i_error("drawbridge: reading the key: " .. tostring(why))
    return -1
  end
  key = (file:read("l") or ""):gsub("%s+$", "")
  file:close()
  if key == "" then
    dovecot.i_error("drawbridge: " .. key_file .. " is empty: write login.key_file's content into it")
    return -1
  end
  local times = {
    request_timeout = request_timeout .. "ms", connect_timeout = connect_timeout .. "ms", request_max_attempts = "1",
    -- 2.3's names. It ignores names that it does not know, without a word, and then waits 60 s; 2.4 refuses them.
    request_timeout_msecs = request_timeout, connect_timeout_msecs = connect_timeout, max_attempts = 1,
  }
  local made
  made, client = pcall(dovecot.http.client, times)
  if not made then
    times.request_timeout_msecs, times.connect_timeout_msecs, times.max_attempts = nil, nil, nil
    client = dovecot.http.client(times)
  end
  return 0
end

function script_deinit() end

function auth_password_verify(req, password) return decide(req, password or "", false) end

-- CRAM-MD5, SCRAM, LMTP and doveadm look a user up without a password.
function auth_passdb_lookup(req) return decide(req, "", true) end
