# Files messages that a filter rule of Drawbridge sends to the spam folder. The milter removes the
# field from all other messages, so that nobody else can set it.
#
#   plugin {
#     sieve_before = /etc/dovecot/drawbridge-spam.sieve
#   }
require ["fileinto", "mailbox"];

if header :is "X-Drawbridge-Folder" "spam" {
  fileinto :create "Junk";
  stop;
}
