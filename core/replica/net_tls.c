/* SPDX-License-Identifier: MIT
 *
 * net_tls: TLS 1.3 with a pre-shared key and (EC)DHE, through OpenSSL. Net thread only, but for tls_setup() and
 * tls_release().
 *
 * What is set, and why: only TLS 1.3, only suites with SHA-256 (which the key is bound to); no tickets, no session cache
 * and no early data, so every link makes fresh keys from fresh random numbers of both sides and recorded bytes are worth
 * nothing; no certificate anywhere, and who connects verifies one, which none can pass: so a peer without the key
 * cannot complete a handshake, and completion by anything but the key is checked once more at its end.
 * A context is made of what OpenSSL finds while it is made: a cipher that it cannot fetch for want of memory is left out, without
 * a word, for as long as the context lives. So tls_setup() has both contexts shake hands with each other.
 * OpenSSL reads and writes through a BIO of ours, so that bytes are counted and a link's share of a turn is kept also
 * inside a handshake.
 */
#include "core/replica/net_int.h"

#include <stdio.h>
#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/obj_mac.h>

#define SUITES "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
#define SUITE_COUNT 2

/* The socket as OpenSSL sees it ----------------------------------------------------------------------------------- */

static int bio_read(BIO *b, char *buf, int len)
{
	struct link *c = BIO_get_data(b);
	ssize_t n = link_recv_raw(c, buf, (size_t)len);

	BIO_clear_retry_flags(b);
	if (n == -EAGAIN)
		BIO_set_retry_read(b);
	return n < 0 ? -1 : (int)n;
}

/* What was kept goes first. 0: nothing of it is left. */
static int send_kept(struct link *c)
{
	while (c->tls_kept_len > 0) {
		ssize_t n = link_send_raw(c, c->tls_kept, c->tls_kept_len);

		if (n < 0)
			return (int)n;
		c->tls_kept_len -= (size_t)n;
		memmove(c->tls_kept, c->tls_kept + n, c->tls_kept_len);
	}
	return 0;
}

/* For the announcement of a new key: what the socket does not take is kept, and counts as written. */
static ssize_t send_or_keep(struct link *c, const uint8_t *buf, size_t len)
{
	ssize_t n = c->tls_kept_len > 0 ? -EAGAIN : link_send_raw(c, buf, len);
	size_t done = n > 0 ? (size_t)n : 0;

	if ((n < 0 && n != -EAGAIN) || len - done > sizeof c->tls_kept - c->tls_kept_len)
		return n;
	memcpy(c->tls_kept + c->tls_kept_len, buf + done, len - done);
	c->tls_kept_len += len - done;
	return (ssize_t)len;
}

static int bio_write(BIO *b, const char *buf, int len)
{
	struct link *c = BIO_get_data(b);
	ssize_t n = send_kept(c);

	BIO_clear_retry_flags(b);
	if (c->tls_keeps && (n == 0 || n == -EAGAIN))
		n = send_or_keep(c, (const uint8_t *)buf, (size_t)len);
	else if (n == 0)
		n = link_send_raw(c, buf, (size_t)len);
	if (n == -EAGAIN)
		BIO_set_retry_write(b);
	return n < 0 ? -1 : (int)n;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
	const struct link *c = BIO_get_data(b);

	(void)num;
	(void)ptr;
	if (cmd == BIO_CTRL_EOF)
		return c->eof;
	return cmd == BIO_CTRL_FLUSH;
}

/* Keys ------------------------------------------------------------------------------------------------------------ */

static SSL_SESSION *session_of(SSL *ssl, const struct net_key *k)
{
	static const unsigned char suite[2] = { 0x13, 0x01 };   /* it stands for its hash only */
	const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, suite);
	SSL_SESSION *s = SSL_SESSION_new();

	if (s && cipher && SSL_SESSION_set1_master_key(s, k->secret, sizeof k->secret) == 1 &&
	    SSL_SESSION_set_cipher(s, cipher) == 1 && SSL_SESSION_set_protocol_version(s, TLS1_3_VERSION) == 1)
		return s;
	SSL_SESSION_free(s);
	return NULL;
}

/* Who connects: offer the first key. */
static int offer_key(SSL *ssl, const EVP_MD *md, const unsigned char **ret_id, size_t *ret_len, SSL_SESSION **ret)
{
	struct link *c = SSL_get_app_data(ssl);
	const struct net_key *k = &c->net->o.keys->keys[0];

	*ret = NULL;
	*ret_id = NULL;
	*ret_len = 0;
	if (md && EVP_MD_get_type(md) != NID_sha256)
		return 1;
	*ret = session_of(ssl, k);
	if (!*ret)
		return 0;
	c->key = k;
	*ret_id = (const unsigned char *)k->id;
	*ret_len = strlen(k->id);
	return 1;
}

/* Who listens: the key that the peer names. Without one the handshake goes on and fails for want of a certificate. */
static int find_key(SSL *ssl, const unsigned char *id, size_t len, SSL_SESSION **ret)
{
	struct link *c = SSL_get_app_data(ssl);
	const struct net_key *k = keyring_find(c->net->o.keys, id, len);

	*ret = NULL;
	c->key = k;
	if (!k) {
		wire_text(c->unknown_id, sizeof c->unknown_id, id, len);
		return 1;
	}
	*ret = session_of(ssl, k);
	return *ret != NULL;
}

/* Contexts -------------------------------------------------------------------------------------------------------- */

static SSL_CTX *new_context(const SSL_METHOD *method)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	if (!ctx)
		return NULL;
	(void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				    SSL_MODE_RELEASE_BUFFERS);
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	if (SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 && SSL_CTX_set_max_proto_version(ctx, 0) == 1 &&
	    SSL_CTX_set_ciphersuites(ctx, SUITES) == 1 && SSL_CTX_set1_groups_list(ctx, "X25519:P-256") == 1 &&
	    SSL_CTX_set_num_tickets(ctx, 0) == 1 && SSL_CTX_set_max_early_data(ctx, 0) == 1)
		return ctx;
	SSL_CTX_free(ctx);
	return NULL;
}

static const char *reason_of(unsigned long e)
{
	const char *text = e != 0 ? ERR_reason_error_string(e) : NULL;

	return text ? text : "no memory";
}

/* One of the two ends of a handshake in memory: a link of which only the key is looked at. */
static SSL *trial_end(struct net *net, struct link *c, bool incoming, BIO *bio)
{
	SSL *ssl = bio ? SSL_new(incoming ? net->tls_server : net->tls_client) : NULL;

	if (!ssl) {
		BIO_free(bio);
		return NULL;
	}
	c->net = net;
	c->incoming = incoming;
	SSL_set_bio(ssl, bio, bio);
	(void)SSL_set_app_data(ssl, c);
	if (incoming)
		SSL_set_accept_state(ssl);
	else
		SSL_set_connect_state(ssl);
	return ssl;
}

/* Do the contexts have all that a handshake needs? */
static bool try_handshake(struct net *net)
{
	struct link *c = calloc(2, sizeof *c);
	BIO *bio[2] = { NULL, NULL };
	SSL *ssl[2] = { NULL, NULL };
	bool done[2] = { false, false }, all = false;

	if (c && BIO_new_bio_pair(&bio[0], 0, &bio[1], 0) == 1) {
		ssl[0] = trial_end(net, &c[0], false, bio[0]);
		ssl[1] = trial_end(net, &c[1], true, bio[1]);
	}
	if (ssl[0] && ssl[1]) {
		STACK_OF(SSL_CIPHER) *suites = SSL_get1_supported_ciphers(ssl[0]);

		all = sk_SSL_CIPHER_num(suites) == SUITE_COUNT;
		sk_SSL_CIPHER_free(suites);
	}
	for (int i = 0; all && i < 8; i++)
		done[i % 2] = done[i % 2] || SSL_do_handshake(ssl[i % 2]) == 1;
	for (int i = 0; i < 2; i++) {
		done[i] = done[i] && SSL_session_reused(ssl[i]) == 1 && SSL_version(ssl[i]) == TLS1_3_VERSION;
		SSL_free(ssl[i]);
	}
	free(c);
	return all && done[0] && done[1];
}

int tls_setup(struct net *net)
{
	if (tls_memory() < 0)
		return err_set(ENOMEM, "TLS cannot be set up: no memory");
	ERR_clear_error();
	net->tls_server = new_context(TLS_server_method());
	net->tls_client = new_context(TLS_client_method());
	net->bio = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "msyncfs");
	if (!net->tls_server || !net->tls_client || !net->bio || BIO_meth_set_read(net->bio, bio_read) != 1 ||
	    BIO_meth_set_write(net->bio, bio_write) != 1 || BIO_meth_set_ctrl(net->bio, bio_ctrl) != 1)
		return err_set(ENOMEM, "TLS cannot be set up: %s", reason_of(ERR_peek_error()));
	/* Only one of them ever asks its peer for a certificate: who listens knows peers by their key. */
	SSL_CTX_set_verify(net->tls_server, SSL_VERIFY_NONE, NULL);
	SSL_CTX_set_psk_find_session_callback(net->tls_server, find_key);
	SSL_CTX_set_psk_use_session_callback(net->tls_client, offer_key);
	if (!try_handshake(net))
		return err_set(ENOMEM, "TLS cannot be set up: its first handshake fails: %s", reason_of(ERR_peek_error()));
	return 0;
}

void tls_release(struct net *net)
{
	SSL_CTX_free(net->tls_server);
	SSL_CTX_free(net->tls_client);
	BIO_meth_free(net->bio);
}

/* A link ---------------------------------------------------------------------------------------------------------- */

int tls_begin(struct link *c)
{
	BIO *b;

	if (!tls_memory_left())
		return -ENOMEM;
	b = BIO_new(c->net->bio);
	c->ssl = SSL_new(c->incoming ? c->net->tls_server : c->net->tls_client);
	if (!c->ssl || !b) {
		BIO_free(b);
		return -ENOMEM;
	}
	BIO_set_data(b, c);
	BIO_set_init(b, 1);
	SSL_set_bio(c->ssl, b, b);
	(void)SSL_set_app_data(c->ssl, c);
	if (c->incoming)
		SSL_set_accept_state(c->ssl);
	else
		SSL_set_connect_state(c->ssl);
	return 0;
}

void tls_end(struct link *c)
{
	SSL_free(c->ssl);
	c->ssl = NULL;
}

/* What a call that gave n <= 0 means: -EAGAIN, 0 for the end of the stream, or an error with its text. */
static int tls_result(struct link *c, int n)
{
	unsigned long e;

	switch (SSL_get_error(c->ssl, n)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		break;
	}
	c->tls_broken = true;
	if (c->io_error)
		return err_set(c->io_error, "%s", strerror(c->io_error));
	if (c->eof)
		return 0;       /* frames have lengths: a cut is noticed without TLS's own word of goodbye */
	e = ERR_peek_error();
	return err_set(EPROTO, "TLS: %s", reason_of(e));
}

/* Why a handshake failed, in words for who has to do something about it. */
static int explain(struct link *c, int error)
{
	const struct net_key *ours = c->net->o.keys->keys;
	unsigned long e = ERR_peek_error();
	int reason = ERR_GET_LIB(e) == ERR_LIB_SSL ? ERR_GET_REASON(e) : 0;

	if (error == 0)
		return err_set(ECONNRESET, "the peer went away during the handshake");
	if (error != -EPROTO)
		return error;
	if (c->incoming && c->unknown_id[0] != '\0')
		return err_set(EACCES, "no key \"%s\" in our key file", c->unknown_id);
	if (c->incoming && reason == SSL_R_BINDER_DOES_NOT_VERIFY && c->key)
		return err_set(EACCES, "the peer has another secret for key \"%s\" than we have", c->key->id);
	/* Any alert of a peer that knows TLS 1.3, before the handshake is done, is about the key. */
	if (!c->incoming && reason >= SSL_AD_REASON_OFFSET)
		return err_set(EACCES, "the peer refuses our key \"%s\": it does not have it, or another secret for it",
			       ours->id);
	return error;
}

int tls_handshake(struct link *c)
{
	int n, r;

	ERR_clear_error();
	n = SSL_do_handshake(c->ssl);
	if (n == 1) {
		/* Whatever else might have led here, only the key counts. */
		if (SSL_session_reused(c->ssl) != 1 || !c->key || SSL_version(c->ssl) != TLS1_3_VERSION)
			return err_set(EACCES, "the handshake was not made with a key");
		return 1;
	}
	r = tls_result(c, n);
	return r == -EAGAIN ? r : explain(c, r);
}

ssize_t tls_recv(struct link *c, void *buf, size_t len)
{
	size_t done = 0;
	int n;

	ERR_clear_error();
	n = SSL_read_ex(c->ssl, buf, len, &done);
	return n == 1 ? (ssize_t)done : tls_result(c, n);
}

/* A key is good for some 2^24 records (RFC 8446, 5.5); a link may live for months. The peer need do nothing. Not while a
 * record is half written: it belongs to the old key. The announcement never waits for room: while it did, OpenSSL would read
 * nothing, and two sides that announce at the same moment would each wait for the other to read, until both are taken for dead. */
static void renew_key(struct link *c)
{
	if (++c->tls_writes < c->net->o.rekey_writes || c->tls_pending || c->tls_kept_len > 0)
		return;
	if (SSL_key_update(c->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) != 1)
		return;
	c->tls_keeps = true;
	/* An error is met again by the write that follows. */
	(void)SSL_do_handshake(c->ssl);
	c->tls_keeps = false;
	c->tls_writes = 0;
}

ssize_t tls_send(struct link *c, const void *buf, size_t len)
{
	size_t done = 0;
	int n, r;

	ERR_clear_error();
	renew_key(c);
	n = SSL_write_ex(c->ssl, buf, len, &done);
	c->tls_pending = n != 1;
	if (n == 1)
		return (ssize_t)done;
	r = tls_result(c, n);
	return r == 0 ? err_set(ECONNRESET, "the peer closed the connection") : r;
}

/* Tell the peer that this is the end, and no cut. */
void tls_goodbye(struct link *c)
{
	if (c->tls_broken || !SSL_is_init_finished(c->ssl))
		return;
	ERR_clear_error();
	(void)SSL_shutdown(c->ssl);
}
