/* SPDX-License-Identifier: MIT
 *
 * net_addr: addresses as text, and which of them are this machine's own. Pure.
 */
#include "core/replica/net_int.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

static int bad_address(const char *text, const char *why)
{
	return err_set(EINVAL, "%s: %s", text, why);
}

static int take_port(const char *text, const char *port, struct net_address *a)
{
	unsigned n = 0;

	if (*port == '\0')
		return bad_address(text, "the port is missing behind the colon");
	for (const char *p = port; *p != '\0'; p++) {
		if (*p < '0' || *p > '9' || (n = n * 10 + (unsigned)(*p - '0')) > 65535)
			return bad_address(text, "a port is a number up to 65535");
	}
	(void)snprintf(a->port, sizeof a->port, "%u", n);
	return 0;
}

static int take_host(const char *text, const char *host, size_t len, struct net_address *a)
{
	if (len >= sizeof a->host)
		return bad_address(text, "the name of the host is too long");
	memcpy(a->host, host, len);
	a->host[len] = '\0';
	return 0;
}

static int take_path(const char *text, struct net_address *a)
{
	if (strlen(text) >= sizeof ((struct sockaddr_un *)NULL)->sun_path)
		return bad_address(text, "the path of a Unix socket is at most 107 bytes long");
	a->local = true;
	(void)snprintf(a->host, sizeof a->host, "%s", text);
	return 0;
}

int net_address_parse(const char *text, bool to_listen, struct net_address *ret)
{
	struct net_address a = { .port = NET_PORT };
	const char *colon = strchr(text, ':'), *close;
	int r;

	if (*text == '\0')
		return err_set(EINVAL, "the address is empty: [ADDR][:PORT] is wanted");
	if (strchr(text, '/')) {
		r = take_path(text, &a);
	} else if (text[0] == '[') {
		close = strchr(text, ']');
		if (!close || (close[1] != '\0' && close[1] != ':'))
			return bad_address(text, "an IPv6 number in brackets is wanted, as [::1]:" NET_PORT);
		r = take_host(text, text + 1, (size_t)(close - text) - 1, &a);
		if (r == 0 && close[1] == ':')
			r = take_port(text, close + 2, &a);
		if (r == 0 && !strchr(a.host, ':'))
			r = bad_address(text, "brackets are for IPv6 numbers");
	} else if (colon && strchr(colon + 1, ':')) {
		r = take_host(text, text, strlen(text), &a);    /* an IPv6 number without a port */
	} else {
		r = take_host(text, text, colon ? (size_t)(colon - text) : strlen(text), &a);
		if (r == 0 && colon)
			r = take_port(text, colon + 1, &a);
	}
	if (r == 0 && !to_listen && (a.host[0] == '\0' || strcmp(a.port, "0") == 0))
		r = bad_address(text, a.host[0] == '\0' ? "the address of the other machine is missing" :
				"port 0 cannot be connected to");
	if (r < 0)
		return r;
	*ret = a;
	return 0;
}

bool addr_is_ours(const struct sockaddr *sa)
{
	const struct sockaddr_in6 *six = (const void *)sa;
	const struct sockaddr_in *four = (const void *)sa;

	switch (sa->sa_family) {
	case AF_UNIX:
		return true;
	case AF_INET:
		return ntohl(four->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	case AF_INET6:
		if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
			return six->sin6_addr.s6_addr[12] == IN_LOOPBACKNET;
		return IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
	default:
		return false;
	}
}

/* Where floods come from: who has one IPv6 address has the 64 bits behind its net. */
bool addr_same_source(const struct sockaddr *a, const struct sockaddr *b)
{
	if (a->sa_family != b->sa_family)
		return false;
	if (a->sa_family == AF_INET)
		return ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr ==
		       ((const struct sockaddr_in *)(const void *)b)->sin_addr.s_addr;
	if (a->sa_family == AF_INET6)
		return memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
			      &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr, 8) == 0;
	return true;
}

void addr_text(const struct sockaddr *sa, char *buf, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (sa->sa_family == AF_INET) {
		const struct sockaddr_in *four = (const void *)sa;

		(void)inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
		(void)snprintf(buf, size, "%s:%u", host, ntohs(four->sin_port));
	} else if (sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *six = (const void *)sa;

		(void)inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
		(void)snprintf(buf, size, "[%s]:%u", host, ntohs(six->sin6_port));
	} else {
		(void)snprintf(buf, size, "a Unix socket");
	}
}
