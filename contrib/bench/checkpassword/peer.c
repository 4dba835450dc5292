/*
 * peer: the least a checkpassword program can do, as a static C program, for
 * drawbridge-checkpassword to be measured against.
 *
 *	peer -s SOCKET [REPLY]
 *
 * It reads descriptor 3 up to the third NUL, sends one fixed request over the
 * unix socket, reads the answer to its end and writes "user=NAME TAB" to
 * descriptor 4. It checks nothing: for measurements only.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char body[] = "{\"account\":\"ann@example.org\",\"secret\":\"opensesame\",\"service\":\"imap\","
	"\"ip\":\"203.0.113.9\",\"real_ip\":\"203.0.113.9\",\"local_ip\":\"192.0.2.1\",\"local_port\":993,"
	"\"tls\":true,\"mechanism\":\"PLAIN\",\"session\":\"bench\"}";

int main(int argc, char **argv)
{
	char in[512], request[1024], answer[4096], reply[600];
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	size_t have = 0;
	int nuls = 0, fd, n;

	if (argc < 3)
		return 2;
	while (nuls < 3 && have < sizeof in) {
		ssize_t got = read(3, in + have, sizeof in - have);
		if (got <= 0)
			return 2;
		for (ssize_t i = 0; i < got; i++)
			nuls += in[have + i] == 0;
		have += got;
	}
	strncpy(addr.sun_path, argv[2], sizeof addr.sun_path - 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
		return 111;
	n = snprintf(request, sizeof request,
		"POST /v1/login HTTP/1.1\r\nHost: drawbridge\r\nConnection: close\r\n"
		"Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", sizeof body - 1, body);
	if (write(fd, request, n) != n)
		return 111;
	have = 0;
	for (;;) {
		ssize_t got = read(fd, answer + have, sizeof answer - 1 - have);
		if (got < 0)
			return 111;
		if (got == 0)
			break;
		have += got;
		answer[have] = 0;
		/* the answer is complete with the object's end */
		if (answer[have - 1] == '}' || (answer[have - 1] == '\n' && have > 1 && answer[have - 2] == '}'))
			break;
	}
	if (!strstr(answer, "\"outcome\":\"allow\""))
		return 1;
	n = snprintf(reply, sizeof reply, "user=%s\t", in);
	return write(4, reply, n) == n ? 0 : 111;
}
