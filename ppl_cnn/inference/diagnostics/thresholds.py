"""The thresholds of the diagnosis, with their sources. Those without a source are this package's.

Numbers at or beyond a threshold decide the verdict; the page shows each beside its number.
"""

MIN_DRAWS = 4
"""Fewest draws per chain that can be diagnosed: split R-hat needs two draws in each half."""

ESS_DRAWS = 10
"""Fewest draws per chain for which an ESS is given. With fewer, ArviZ's ESS is n log10 n whatever
the chains do, as it looks at no autocorrelation in halves of at most four draws."""

RHAT_GOOD = 1.01
"""Largest good R-hat. Vehtari, Gelman, Simpson, Carpenter, Bürkner, Rank-normalization, folding,
and localization: an improved R-hat for assessing convergence of MCMC, Bayesian Analysis 16(2),
2021."""

RHAT_POOR = 1.05
"""Above this R-hat draws are bad. Chains, or two sides of them, disagree unless chance explains it;
then the draws are far too few."""

RHAT_BY_CHANCE = 0.001
"""How often chance alone makes the largest of a run's R-hats larger than what counts as chance."""

ESS_GOOD = 400
"""Smallest good ESS, bulk and tail, over all chains: from there on error estimates are reliable.
Vehtari et al. 2021, who count 50 for each half of four chains; more chains don't need more."""

ESS_BAD = 50
"""Below this ESS draws are bad: neither their errors nor how many more are needed can be told.
Vehtari et al. 2021 ask for as much of each half of a chain before an ESS is believed."""

ENOUGH_WEIGHTS = 500
"""Effective number of weights from which more draws alone make a good run: 2,000 draws by them are
worth 400."""

BFMI_GOOD = 0.3
"""Smallest good energy fraction of missing information (E-BFMI). Betancourt, Diagnosing suboptimal
cotangent disintegrations in Hamiltonian Monte Carlo, 2016, arXiv 1604.00695, as Stan applies it."""

DIVERGENT_SHARE = 0.01
"""Above this share of divergent draws, what the chains missed may be large."""

RANKS_DIFFER = 0.01
"""Below this p, corrected for the number of tests, ranks of chains differ by more than chance."""

STEIN_BY_CHANCE = 0.001
"""How often chance alone, at most, sets mean and Stein mean apart by what counts as more."""

DIFFERENT = 3.0
"""Two runs of one density differ if an estimate of theirs does, by more joint standard errors."""

NEAR = 0.1
"""A chain is near its start if its correlation with it exceeds that with others' by this much."""

NEAR_FOR_SURE = 0.3
"""If the chains disagree, a difference of this much needs no test against chance."""

NEAR_BY_CHANCE = 0.01
"""How often chance alone makes a correlation with the own start count as nearness."""

AT_OPTIMUM = 0.9
"""Images more alike than this to the optima where their chains started are those optima with noise,
unless something shows that the chains have mixed."""

HARDLY_MOVED = 0.05
"""A chain has hardly moved if its last image is this near to its start, as a share of the start's
length."""

DRIFT_BY_CHANCE = 0.001
"""How often chance alone makes the change of a quantity count as a drift."""

SWAPPED_RARELY = 0.1
"""Neighbouring rungs that swap their replicas less often are hardly one ladder."""
