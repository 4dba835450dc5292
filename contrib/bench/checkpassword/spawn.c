/*
 * spawn: runs programs as Dovecot runs a checkpassword program, one after the
 * other, in turns, and prints a line for each run:
 *
 *	INDEX WALL_US CPU_US MAXRSS_KB STATUS
 *
 *	spawn ROUNDS SOCKET PROGRAM...
 *
 * It is in C and static because a program's peak of memory, as the kernel
 * counts it, is never less than that of the process that started it.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

static char *env[] = {
	"AUTH_USER=ann@example.org", "AUTH_USERNAME=ann", "AUTH_DOMAIN=example.org", "AUTH_SERVICE=imap", "SERVICE=imap",
	"AUTH_MECH=PLAIN", "AUTH_SECURED=TLS", "AUTH_PID=1", "AUTH_RIP=203.0.113.9", "AUTH_REAL_RIP=203.0.113.9",
	"AUTH_LIP=192.0.2.1", "AUTH_LPORT=993", "AUTH_RPORT=40000", "AUTH_SESSION=bench", "TCPREMOTEIP=203.0.113.9",
	"TCPLOCALIP=192.0.2.1", "PROTO=TCP", "ORIG_UID=0", NULL
};
static const char credentials[] = "ann@example.org\0opensesame\0"; /* and the literal's own NUL */

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static double micro(struct timeval t) { return t.tv_sec * 1e6 + t.tv_usec; }

static void one(int index, char *socket, char *program)
{
	char *argv[] = { program, "-s", socket, "/usr/lib/dovecot/checkpassword-reply", NULL };
	int in[2], out[2], status;
	struct rusage usage;
	char reply[1024];
	double start = now();

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || write(in[1], credentials, sizeof credentials) < 0)
		exit(1);
	pid_t pid = fork();
	if (pid == 0) {
		/* in and out are 5 and above: see main */
		dup2(in[0], 3);
		dup2(out[1], 4);
		execve(program, argv, env);
		_exit(127);
	}
	close(in[0]);
	close(in[1]);
	close(out[1]);
	while (read(out[0], reply, sizeof reply) > 0)
		;
	close(out[0]);
	if (pid < 0 || wait4(pid, &status, 0, &usage) != pid)
		exit(1);
	printf("%d %.0f %.0f %ld %d\n", index, now() - start, micro(usage.ru_utime) + micro(usage.ru_stime),
		usage.ru_maxrss, WIFEXITED(status) ? WEXITSTATUS(status) : 255);
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	while (open("/dev/null", O_RDWR | O_CLOEXEC) < 4)
		;
	for (int round = atoi(argv[1]); round > 0; round--)
		for (int i = 3; i < argc; i++)
			one(i - 3, argv[2], argv[i]);
	return 0;
}
