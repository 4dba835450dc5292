# Files messages that a filter rule of Drawbridge sends to the spam folder. The milter removes the
# field from all other messages, so that nobody else can set it.
#
#   plugin {
#     sieve_before = /etc/dovecot/drawbridge-spam.sieve
#   }
#
# A message whose recipients are in several domains names the domains that the rule is for.
require ["fileinto", "mailbox", "envelope", "variables"];

if header :is "X-Drawbridge-Folder" "spam" {
  if not exists "X-Drawbridge-Folder-Domain" {
    fileinto :create "Junk";
    stop;
  }
  if envelope :domain :matches "to" "*" {
    if header :contains "X-Drawbridge-Folder-Domain" "<${1}>" {
      fileinto :create "Junk";
      stop;
    }
  }
}
