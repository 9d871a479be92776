# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Whether enough people vouch for an artifact: each principal counts once, and for commit and SVN alike.

    endorsements ── right bytes, not too old, not too low, not revoked by the same principal ── k of them agree ─┐
    provenance ──── right bytes, the same commit ───────────────────────────────────────────────────────────────┴─ yes

What a principal has said once holds: a lower SVN of his does not count any more, nor does one lower than what was
accepted. All that is said by a key of the policy is remembered, whatever becomes of the artifact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tools.launcher.base.errors import CheckError
from tools.launcher.trust.artifact import Artifact
from tools.launcher.trust.envelope import Unusable, opened
from tools.launcher.trust.memory import Seen
from tools.launcher.trust.policy import Policy
from tools.launcher.trust.statements import Dated, Endorsement, Latest, Provenance, Statement, read
from tools.sev.formats import SUBJECT

_SKEW = timedelta(minutes=5)
_DAY = "%Y-%m-%d"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle as it came; `where` names it in messages."""

    where: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Yes: which commit, which SVN, who endorsed (with the day until which that holds), who published."""

    commit: str
    svn: int
    endorsers: tuple[tuple[str, datetime], ...]
    publisher: str | None
    used: tuple[Bundle, ...]


class _Case:
    """What speaks for an artifact, and why not more does."""

    def __init__(self, policy: Policy, artifact: Artifact, now: datetime) -> None:
        self.policy, self.artifact, self.now = policy, artifact, now
        self.endorsements: list[tuple[Endorsement, Bundle]] = []
        self.latest: list[Latest] = []
        self.provenances: list[tuple[Provenance, Bundle]] = []
        self.used: list[Bundle] = []
        self.why: list[str] = []

    def take(self, bundle: Bundle) -> None:
        """Sort a bundle in; what is unusable, or says something of others, does not count."""
        try:
            statement = read(opened(bundle.data, self.policy))
            self._compare(statement)
        except Unusable as error:
            self.why.append(f"{bundle.where}: {error}")
            return
        if isinstance(statement, Latest):
            self.latest.append(statement)
            self.used.append(bundle)
        elif isinstance(statement, Endorsement):
            self.endorsements.append((statement, bundle))
        elif isinstance(statement, Provenance):
            self.provenances.append((statement, bundle))

    def _compare(self, statement: Statement) -> None:
        """Unusable unless it is about these bytes: the manifest and each file, no less and no more.

        "latest" is about none in particular.
        """
        if statement.profile != self.policy.profile:
            raise Unusable(f"is on profile {statement.profile[:80]!r}, not {self.policy.profile!r}")
        if isinstance(statement, Dated) and statement.date > self.now + _SKEW:
            raise Unusable(f"is of the future ({statement.date:{_DAY}})")
        if isinstance(statement, Latest):
            return
        wanted = {name: file.sha256 for name, file in self.artifact.files.items()}
        wanted |= {SUBJECT: self.artifact.sha256}
        if statement.subjects != wanted:
            differing = sorted(
                name for name in {*wanted, *statement.subjects} if wanted.get(name) != statement.subjects.get(name)
            )
            raise Unusable(f"by {statement.principal}, is on other bytes: {differing[0][:80]}")

    def remember(self, seen: Seen) -> None:
        """Keep the highest that each key has said."""
        for latest in self.latest:
            seen.heard(latest.fingerprint, latest.svn, latest.date)
        for endorsement, _ in self.endorsements:
            seen.heard(endorsement.fingerprint, endorsement.svn)

    def counted(self, seen: Seen) -> list[tuple[Endorsement, Bundle]]:
        """Endorsements that count; for each other one a line in `why`."""
        found = []
        for endorsement, bundle in self.endorsements:
            reason = self._against(endorsement, seen)
            if reason is None:
                found.append((endorsement, bundle))
            else:
                self.why.append(f"{bundle.where}: by {endorsement.principal}, {reason}")
        return found

    def _against(self, endorsement: Endorsement, seen: Seen) -> str | None:
        svn, date, until, now = endorsement.svn, endorsement.date, endorsement.until, self.now
        if now > until:
            return f"has ended on {until:{_DAY}}"
        age = self.policy.maximum_age
        if age is not None and now - date > age:
            return f"is of {date:{_DAY}}, older than {age.days} days"
        if svn < self.policy.minimum_svn:
            return f"has SVN {svn}, the policy's minimum is {self.policy.minimum_svn}"
        if svn < seen.svn:
            return f"has SVN {svn}, and {seen.svn} was accepted here before"
        mine = self.policy.principals[endorsement.principal]
        highest = max((seen.keys[key].svn for key in mine if key in seen.keys), default=0)
        if svn < highest:
            return f"has SVN {svn}, and the same principal has said {highest}"
        return self._not_latest(endorsement.principal, seen) if self.policy.latest else None

    def _not_latest(self, principal: str, seen: Seen) -> str | None:
        """Why there is no word of the principal's, good today, that nothing newer is needed."""
        said = [one for one in self.latest if one.principal == principal]
        if not said:
            return 'has no statement "latest" here'
        newest = max(said, key=lambda one: (one.svn, one.date))
        before = seen.keys.get(newest.fingerprint)
        if before is not None and before.latest is not None and newest.date < before.latest:
            return f'whose "latest" of {newest.date:{_DAY}} is older than one that was seen before'
        if self.now > newest.until:
            return f'whose "latest" has ended on {newest.until:{_DAY}}'
        return None


def decide(policy: Policy, artifact: Artifact, bundles: Sequence[Bundle], seen: Seen, *, now: datetime) -> Decision:
    """The decision; CheckError says what is missing, with a line for each statement that did not count.

    `seen` learns what the bundles say.
    """
    where = artifact.digest
    if artifact.profile != policy.profile:
        raise CheckError(f"has profile {artifact.profile[:80]!r}, the policy's is {policy.profile!r}", where=where)
    case = _Case(policy, artifact, now)
    for bundle in bundles:
        case.take(bundle)
    case.remember(seen)
    groups: dict[tuple[int, str], dict[str, tuple[Endorsement, Bundle]]] = {}
    for endorsement, bundle in case.counted(seen):
        group = groups.setdefault((endorsement.svn, endorsement.commit), {})
        # Several keys of one principal are one voice: the one that holds longest.
        other = group.get(endorsement.principal)
        if other is None or other[0].until < endorsement.until:
            group[endorsement.principal] = (endorsement, bundle)
    largest = max(groups, key=lambda key: (len(groups[key]), key), default=None)
    names = sorted(groups[largest]) if largest is not None else []
    if largest is None or len(names) < policy.endorsers:
        what = f"endorsed by {len(names)} of the {policy.endorsers} principals that it takes"
        what += f" ({', '.join(names)})" if names else ""
        raise CheckError(what, where=where, details=tuple(case.why))
    svn, commit = largest
    publisher = _publisher(case, commit)
    seen.svn = max(seen.svn, svn)
    voices = groups[largest]
    return Decision(
        commit=commit,
        svn=svn,
        endorsers=tuple((name, voices[name][0].until) for name in names),
        publisher=None if publisher is None else publisher[0],
        used=(*(voices[name][1] for name in names), *([publisher[1]] if publisher else []), *case.used),
    )


def _publisher(case: _Case, commit: str) -> tuple[str, Bundle] | None:
    """Who says that the artifact was published from that commit; None when the policy does not ask."""
    policy = case.policy
    if not policy.provenance:
        return None
    for provenance, bundle in case.provenances:
        if provenance.principal not in policy.provenance:
            why = "is not by one whose provenance counts"
        elif provenance.commit != commit:
            why = f"is of commit {provenance.commit}, endorsed is {commit}"
        elif provenance.although and not policy.although:
            why = f"says that it was published although: {provenance.although[0]}"
        else:
            return provenance.principal, bundle
        case.why.append(f"{bundle.where}: the provenance by {provenance.principal} {why}")
    what = f"no provenance that counts, by {' or '.join(policy.provenance)}"
    raise CheckError(what, where=case.artifact.digest, details=tuple(case.why))
