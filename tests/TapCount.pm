# SPDX-License-Identifier: MIT
# prove's console output, closed by what was said with each test that failed, and one line "N passed, N failed" that counts the
# results of all programs. A program that failed without saying which test (a crash, a wrong plan, a bad exit status) counts as one
# failure.
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

# Lines of comment that are repeated for one failed test, and results for one program.
use constant { COMMENTS => 12, RESULTS => 20 };

my @programs;       # by name, in the order in which they began
my %failures;       # name => lines

sub open_test {
    my ($self, $name, $parser) = @_;
    my @lines;
    my ($results, $left) = (0, 0);
    push @programs, $name;
    $failures{$name} = \@lines;
    $parser->callback(ALL => sub {
        my $result = shift;
        if ($result->is_test) {
            $left = !$result->is_ok && $results++ < RESULTS ? COMMENTS : 0;
            push @lines, $result->raw if $left;
        } elsif ($result->is_comment) {
            # What a program says as it ends early belongs to no test.
            push @lines, $result->raw if $left-- > 0 || $result->raw =~ /^# the test ended early/;
        } elsif ($result->is_bailout) {
            push @lines, $result->raw;
        }
    });
    return $self->SUPER::open_test($name, $parser);
}

sub summary {
    my ($self, $aggregate, @rest) = @_;
    $self->SUPER::summary($aggregate, @rest);
    my $failed = $aggregate->failed;
    for my $parser ($aggregate->parsers) {
        $failed++ if $parser->has_problems && !$parser->failed;
    }
    for my $name (@programs) {
        $self->_output(join "\n    ", $name, @{ $failures{$name} }) if @{ $failures{$name} };
        $self->_output("\n") if @{ $failures{$name} };
    }
    $self->_output(sprintf "%d passed, %d failed\n", scalar $aggregate->passed, $failed);
}

1;
