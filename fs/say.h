/* SPDX-License-Identifier: MIT
 *
 * say: errors of the verbs as one line: what, where, what to do. A text of the core that says itself what to do has it behind
 * a semicolon; else what to do follows from the error and from what the verb is about.
 */
#ifndef MSYNCFS_SAY_H
#define MSYNCFS_SAY_H

#include <stdbool.h>

enum say_about {
	SAY_MOUNT,      /* a store that is to be mounted */
	SAY_STORE,      /* one that is to be read */
	SAY_NEW,        /* a file that is to be made */
	SAY_FILE,       /* a file that is to be read or written */
	SAY_DIR,        /* a mount, by its directory */
	SAY_ADDRESS,    /* of another machine, or to listen on */
};

/* "PATH: what: hint", of what the core has said last, or else of the error (either sign). what: what could not be done, as
 * "cannot be opened", for texts that do not begin with the path; NULL: nothing. */
void say_error(enum say_about about, const char *path, const char *what, int error);
/* The same with a text. */
void say_text(enum say_about about, const char *path, const char *what, const char *text, int error);
/* The same with the error's own text, whatever the core has said. */
void say_errno(enum say_about about, const char *path, const char *what, int error);
/* A mount, or its control file, could not be opened or used. found: the directory itself is there. */
void say_mount(const char *mountpoint, bool found, int error);
/* Standard output could not be written. */
void say_stdout(int error);

#endif
