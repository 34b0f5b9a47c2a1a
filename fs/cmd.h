/* SPDX-License-Identifier: MIT
 *
 * cmd: the verbs of the command line. Each gets its own name as argv[0], answers --help itself,
 * prints its errors as one line and returns the exit status: 0, EXIT_FAILED, EXIT_USAGE, or what
 * its man page says.
 */
#ifndef MSYNCFS_CMD_H
#define MSYNCFS_CMD_H

#define EXIT_FAILED 1
#define EXIT_USAGE  2

int cmd_mount(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_dump(int argc, char **argv);
int cmd_load(int argc, char **argv);
int cmd_demote(int argc, char **argv);
int cmd_keygen(int argc, char **argv);
int cmd_watch(int argc, char **argv);
int cmd_sync(int argc, char **argv);
int cmd_promote(int argc, char **argv);

#endif
