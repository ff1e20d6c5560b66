//! Who may do what.

use super::decision::Source;
use super::{Attached, Decision, Entry, Ground, Layer, Person, Refusal, Snapshot};
use crate::model::{PolicyMapping, PolicyName, Status, User};
use crate::policy::{Context, Policy, PrincipalKind, Request, Subject, Verdict};

/// For whom a request is made: the layer of rights that everything else narrows.
enum Base<'s> {
    Root,
    User(&'s User, &'s Person),
}

/// What keys stand for, once it is known that they count.
struct Principal<'s> {
    base: Base<'s>,
    session_policy: Option<&'s Policy>,
    subject: Subject<'s>,
}

impl Snapshot {
    /// Whether whoever signs with this access key may do this with that.
    ///
    /// The root account may do everything. A user may do what a statement allows, of the user's own
    /// policies or of those of an enabled group, unless one denies it. An account may do what its
    /// parent may and, if it has a session policy, of that only what this allows as well.
    ///
    /// `resource` is an ARN such as `arn:aws:s3:::bucket/key`, or empty for an action that is about
    /// none. The signature is not looked at: who calls has checked it, with [`Snapshot::holder`]'s
    /// secret. Takes no lock, and allocates nothing.
    pub fn is_allowed<'s>(
        &'s self,
        access_key: &str,
        action: &str,
        resource: &str,
        context: &Context<'_>,
    ) -> Decision<'s> {
        let principal = match self.principal(access_key, context) {
            Ok(principal) => principal,
            Err(refusal) => return Decision::Denied(refusal),
        };
        let request = Request::new(principal.subject, action, resource, context);
        let base = match principal.base {
            Base::Root => Decision::Allowed(Ground::Root),
            Base::User(user, person) => self.judge_user(&user.name, person, &request),
        };
        match (base, principal.session_policy) {
            (Decision::Denied(_), _) | (Decision::Allowed(_), None) => base,
            (Decision::Allowed(_), Some(policy)) => judge_session(policy, &request),
        }
    }

    fn principal(
        &self,
        access_key: &str,
        context: &Context<'_>,
    ) -> Result<Principal<'_>, Refusal<'_>> {
        if access_key == &*self.root {
            return Ok(self.as_root(None));
        }
        if let Some((user, person)) = self.person(access_key) {
            return as_user(user, person, PrincipalKind::User, None);
        }
        if let Some(account) = self.service_account(access_key) {
            if !account.status.is_enabled() {
                return Err(Refusal::AccountDisabled);
            }
            if account.expires_at.is_some_and(|end| end <= context.now()) {
                return Err(Refusal::Expired);
            }
            return self.derived(&account.parent, account.session_policy.as_deref());
        }
        let credential = self.temporary(access_key).ok_or(Refusal::UnknownAccessKey)?;
        if credential.expires_at <= context.now() {
            return Err(Refusal::Expired);
        }
        self.derived(&credential.parent, credential.session_policy.as_deref())
    }

    fn person(&self, name: &str) -> Option<(&User, &Person)> {
        let person = self.people.get(name)?;
        Some((&*person.user.as_ref()?.item, person))
    }

    /// What acts for this parent.
    fn derived<'s>(
        &'s self,
        parent: &'s str,
        session_policy: Option<&'s Policy>,
    ) -> Result<Principal<'s>, Refusal<'s>> {
        if parent == &*self.root {
            return Ok(self.as_root(session_policy));
        }
        let (user, person) = self.person(parent).ok_or(Refusal::NoParent { user: parent })?;
        as_user(user, person, PrincipalKind::Derived, session_policy)
    }

    fn as_root<'s>(&'s self, session_policy: Option<&'s Policy>) -> Principal<'s> {
        let subject = Subject { username: &self.root, kind: PrincipalKind::Root };
        Principal { base: Base::Root, session_policy, subject }
    }

    fn judge_user<'s>(
        &'s self,
        user: &'s str,
        person: &'s Person,
        request: &Request<'_>,
    ) -> Decision<'s> {
        let mut ground = None;
        let own = person.policies.as_ref();
        if let Some(denied) =
            self.judge_mapping(own, |policy| Source::User(user, policy), request, &mut ground)
        {
            return denied;
        }
        for name in person.groups.iter().flat_map(|groups| groups.iter()) {
            let Some(team) = self.teams.get(name) else { continue };
            if !team.group.as_ref().is_some_and(|group| group.item.status().is_enabled()) {
                continue;
            }
            let source = |policy| Source::Group(name, policy);
            let mapping = team.policies.as_ref();
            if let Some(denied) = self.judge_mapping(mapping, source, request, &mut ground) {
                return denied;
            }
        }
        match ground {
            Some(statement) => Decision::Allowed(Ground::Statement(statement)),
            None => Decision::Denied(Refusal::NoStatement { layer: Layer::User(user) }),
        }
    }

    /// Looks at all policies of one mapping, until one denies. The first that allows is the ground,
    /// if there is none yet.
    fn judge_mapping<'s>(
        &'s self,
        mapping: Option<&'s Entry<PolicyMapping>>,
        source: impl Fn(&'s PolicyName) -> Source<'s>,
        request: &Request<'_>,
        ground: &mut Option<Attached<'s>>,
    ) -> Option<Decision<'s>> {
        for name in mapping?.item.policies() {
            let Some(policy) = self.policy(name) else { continue };
            let attached = |index| Attached { source: source(name), policy, index };
            match policy.evaluate(request) {
                Verdict::Denied(index) => {
                    return Some(Decision::Denied(Refusal::Statement(attached(index))));
                }
                Verdict::Allowed(index) => {
                    ground.get_or_insert_with(|| attached(index));
                }
                Verdict::Silent => {}
            }
        }
        None
    }
}

fn as_user<'s>(
    user: &'s User,
    person: &'s Person,
    kind: PrincipalKind,
    session_policy: Option<&'s Policy>,
) -> Result<Principal<'s>, Refusal<'s>> {
    match user.status {
        Status::Enabled => {
            let subject = Subject { username: &user.name, kind };
            Ok(Principal { base: Base::User(user, person), session_policy, subject })
        }
        Status::Disabled => Err(Refusal::UserDisabled { user: &user.name }),
    }
}

fn judge_session<'s>(policy: &'s Policy, request: &Request<'_>) -> Decision<'s> {
    let attached = |index| Attached { source: Source::SessionPolicy, policy, index };
    match policy.evaluate(request) {
        Verdict::Denied(index) => Decision::Denied(Refusal::Statement(attached(index))),
        Verdict::Allowed(index) => Decision::Allowed(Ground::Statement(attached(index))),
        Verdict::Silent => Decision::Denied(Refusal::NoStatement { layer: Layer::SessionPolicy }),
    }
}
