-- Drawbridge's second passdb, behind the site's own: see drawbridge-verified.conf.ext.
--
-- It verifies no password. It has the rules evaluated for the name that the site's passdb has given
-- a login, by drawbridge.lua. EDIT where that is.
drawbridge_verified = true
dofile("/etc/dovecot/drawbridge.lua")
