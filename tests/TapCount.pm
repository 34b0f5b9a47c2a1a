# SPDX-License-Identifier: MIT
# prove's console output, closed by one line "N passed, N failed" that counts the results of all programs.
# A program that failed without saying which test (a crash, a wrong plan, a bad exit status) counts as one failure.
package TapCount;

use strict;
use warnings;

# As prove itself chooses: a progress line for a terminal, plain lines for a file.
our @ISA;
BEGIN {
    my $base = -t STDOUT ? 'TAP::Formatter::Console' : 'TAP::Formatter::File';
    eval "require $base" or die $@;
    @ISA = ($base);
}

sub summary {
    my ($self, $aggregate, @rest) = @_;
    $self->SUPER::summary($aggregate, @rest);
    my $failed = $aggregate->failed;
    for my $parser ($aggregate->parsers) {
        $failed++ if $parser->has_problems && !$parser->failed;
    }
    $self->_output(sprintf "%d passed, %d failed\n", scalar $aggregate->passed, $failed);
}

1;
