//! Who may do what.

use super::decision::Source;
use super::{Attached, Decision, Ground, Holder, Layer, Refusal, Snapshot};
use crate::model::{PolicyMapping, Status};
use crate::policy::{Context, Policy, PrincipalKind, Request, Subject, Verdict};

/// For whom a request is made: the layer of rights that everything else narrows.
enum Base<'s> {
    Root,
    User(&'s str),
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
            Base::User(user) => self.judge_user(user, &request),
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
        match self.holder(access_key).ok_or(Refusal::UnknownAccessKey)? {
            Holder::Root => {
                let subject = Subject { username: &self.root, kind: PrincipalKind::Root };
                Ok(Principal { base: Base::Root, session_policy: None, subject })
            }
            Holder::User(user) => {
                check_user(&user.name, user.status)?;
                let subject = Subject { username: &user.name, kind: PrincipalKind::User };
                Ok(Principal { base: Base::User(&user.name), session_policy: None, subject })
            }
            Holder::ServiceAccount(account) => {
                if !account.status.is_enabled() {
                    return Err(Refusal::AccountDisabled);
                }
                if account.expires_at.is_some_and(|end| end <= context.now()) {
                    return Err(Refusal::Expired);
                }
                self.derived(&account.parent, account.session_policy.as_deref())
            }
            Holder::Temporary(credential) => {
                if credential.expires_at <= context.now() {
                    return Err(Refusal::Expired);
                }
                self.derived(&credential.parent, credential.session_policy.as_deref())
            }
        }
    }

    /// What acts for this parent.
    fn derived<'s>(
        &'s self,
        parent: &'s str,
        session_policy: Option<&'s Policy>,
    ) -> Result<Principal<'s>, Refusal<'s>> {
        if parent == &*self.root {
            let subject = Subject { username: parent, kind: PrincipalKind::Root };
            return Ok(Principal { base: Base::Root, session_policy, subject });
        }
        let user = self.user(parent).ok_or(Refusal::NoParent { user: parent })?;
        check_user(&user.name, user.status)?;
        let subject = Subject { username: &user.name, kind: PrincipalKind::Derived };
        Ok(Principal { base: Base::User(&user.name), session_policy, subject })
    }

    fn judge_user<'s>(&'s self, user: &'s str, request: &Request<'_>) -> Decision<'s> {
        let mut ground = None;
        let own = self.user_policies(user);
        if let Some(denied) =
            self.judge_mapping(own, |p| Source::User(user, p), request, &mut ground)
        {
            return denied;
        }
        for group in self.groups_of(user) {
            if !self.group(group).is_some_and(|group| group.status().is_enabled()) {
                continue;
            }
            let mapping = self.group_policies(group);
            let source = |policy| Source::Group(group, policy);
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
        mapping: Option<&'s PolicyMapping>,
        source: impl Fn(&'s crate::model::PolicyName) -> Source<'s>,
        request: &Request<'_>,
        ground: &mut Option<Attached<'s>>,
    ) -> Option<Decision<'s>> {
        for name in mapping?.policies() {
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

fn check_user(user: &str, status: Status) -> Result<(), Refusal<'_>> {
    match status {
        Status::Enabled => Ok(()),
        Status::Disabled => Err(Refusal::UserDisabled { user }),
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
