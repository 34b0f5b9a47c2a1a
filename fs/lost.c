/* SPDX-License-Identifier: MIT
 *
 * lost: see lost.h.
 */
#include "fs/lost.h"

#include "core/store/map.h"
#include "fs/guard.h"

#include <signal.h>
#include <ucontext.h>

static void on_fault(int sig, siginfo_t *info, void *context)
{
	struct sigaction deadly = { .sa_handler = SIG_DFL };
	const ucontext_t *was = context;

	/* A damaged page that nobody has touched yet: whoever does will be told again. */
	if (info->si_code == BUS_MCEERR_AO)
		return;
	if (info->si_code > 0)
		map_fault(info->si_addr, &was->uc_sigmask);
	/* It was nobody's: at the second try it ends the process. */
	guard_alarm();
	sigaction(sig, &deadly, NULL);
	if (info->si_code <= 0)
		raise(sig);
}

void lost_catch(void)
{
	struct sigaction act = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	sigaction(SIGBUS, &act, NULL);
}
