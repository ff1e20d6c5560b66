//! Evaluation of access requests.

use super::decision::Source;
use super::{
    AllowReason, AttachedStatement, Decision, DenyReason, HashedItem, Layer, Snapshot, UserEntry,
};
use crate::model::{PolicyMapping, PolicyName, Status, User};
use crate::policy::{Context, Policy, PrincipalKind, Request, Subject, Verdict};

/// Principal on whose behalf a request is made; all other layers narrow its permissions.
enum BasePrincipal<'s> {
    Root,
    User(&'s User, &'s UserEntry),
}

/// Principal of a valid access key.
struct Principal<'s> {
    base: BasePrincipal<'s>,
    session_policy: Option<&'s Policy>,
    subject: Subject<'s>,
}

impl Snapshot {
    /// Decides whether the owner of an access key may perform an action on a resource.
    ///
    /// The root account has all permissions. A user may do what a statement allows, of the user's
    /// own policies or of those of an enabled group, unless a statement denies it. An account may
    /// do what its parent may and, with a session policy, only what that policy allows as well.
    ///
    /// `resource` is an ARN such as `arn:aws:s3:::bucket/key`, or empty for an action without a
    /// resource. The signature is not checked here: the caller has verified it with the secret of
    /// [`Snapshot::key_owner`]. Takes no lock, and allocates nothing.
    pub fn is_allowed<'s>(
        &'s self,
        access_key: &str,
        action: &str,
        resource: &str,
        context: &Context<'_>,
    ) -> Decision<'s> {
        let principal = match self.principal(access_key, context) {
            Ok(principal) => principal,
            Err(reason) => return Decision::Denied(reason),
        };
        let request = Request::new(principal.subject, action, resource, context);
        let base = match principal.base {
            BasePrincipal::Root => Decision::Allowed(AllowReason::Root),
            BasePrincipal::User(user, user_entry) => {
                self.evaluate_user(&user.name, user_entry, &request)
            }
        };
        match (base, principal.session_policy) {
            (Decision::Denied(_), _) | (Decision::Allowed(_), None) => base,
            (Decision::Allowed(_), Some(policy)) => evaluate_session_policy(policy, &request),
        }
    }

    fn principal(
        &self,
        access_key: &str,
        context: &Context<'_>,
    ) -> Result<Principal<'_>, DenyReason<'_>> {
        if access_key == &*self.root {
            return Ok(self.root_principal(None));
        }
        if let Some((user, user_entry)) = self.user_entry(access_key) {
            return user_principal(user, user_entry, PrincipalKind::User, None);
        }
        if let Some(account) = self.service_account(access_key) {
            if !account.status.is_enabled() {
                return Err(DenyReason::AccountDisabled);
            }
            if account.expires_at.is_some_and(|time| time <= context.now()) {
                return Err(DenyReason::Expired);
            }
            return self.derived_principal(&account.parent, account.session_policy.as_deref());
        }
        let credential = self.temporary(access_key).ok_or(DenyReason::UnknownAccessKey)?;
        if credential.expires_at <= context.now() {
            return Err(DenyReason::Expired);
        }
        self.derived_principal(&credential.parent, credential.session_policy.as_deref())
    }

    fn user_entry(&self, name: &str) -> Option<(&User, &UserEntry)> {
        let user_entry = self.user_entries.get(name)?;
        Some((&*user_entry.user.as_ref()?.item, user_entry))
    }

    /// Returns the principal of an account that acts for this parent.
    fn derived_principal<'s>(
        &'s self,
        parent: &'s str,
        session_policy: Option<&'s Policy>,
    ) -> Result<Principal<'s>, DenyReason<'s>> {
        if parent == &*self.root {
            return Ok(self.root_principal(session_policy));
        }
        let (user, user_entry) =
            self.user_entry(parent).ok_or(DenyReason::NoParent { user: parent })?;
        user_principal(user, user_entry, PrincipalKind::Derived, session_policy)
    }

    fn root_principal<'s>(&'s self, session_policy: Option<&'s Policy>) -> Principal<'s> {
        let subject = Subject { username: &self.root, kind: PrincipalKind::Root };
        Principal { base: BasePrincipal::Root, session_policy, subject }
    }

    fn evaluate_user<'s>(
        &'s self,
        user: &'s str,
        user_entry: &'s UserEntry,
        request: &Request<'_>,
    ) -> Decision<'s> {
        let mut first_allow = None;
        let own = user_entry.policies.as_ref();
        if let Some(denied) = self.evaluate_mapping(
            own,
            |policy| Source::User(user, policy),
            request,
            &mut first_allow,
        ) {
            return denied;
        }
        for name in user_entry.groups.iter().flat_map(|groups| groups.iter()) {
            let Some(group_entry) = self.group_entries.get(name) else { continue };
            if !group_entry.group.as_ref().is_some_and(|group| group.item.status().is_enabled()) {
                continue;
            }
            let source = |policy| Source::Group(name, policy);
            let mapping = group_entry.policies.as_ref();
            if let Some(denied) = self.evaluate_mapping(mapping, source, request, &mut first_allow)
            {
                return denied;
            }
        }
        match first_allow {
            Some(statement) => Decision::Allowed(AllowReason::Statement(statement)),
            None => Decision::Denied(DenyReason::NoStatement { layer: Layer::User(user) }),
        }
    }

    /// Evaluates all policies of one mapping, until one denies. Stores the first statement that
    /// allows, if there is none yet.
    fn evaluate_mapping<'s>(
        &'s self,
        mapping: Option<&'s HashedItem<PolicyMapping>>,
        source: impl Fn(&'s PolicyName) -> Source<'s>,
        request: &Request<'_>,
        first_allow: &mut Option<AttachedStatement<'s>>,
    ) -> Option<Decision<'s>> {
        for name in mapping?.item.policies() {
            let Some(policy) = self.policy(name) else { continue };
            let attached = |index| AttachedStatement { source: source(name), policy, index };
            match policy.evaluate(request) {
                Verdict::Denied(index) => {
                    return Some(Decision::Denied(DenyReason::Statement(attached(index))));
                }
                Verdict::Allowed(index) => {
                    first_allow.get_or_insert_with(|| attached(index));
                }
                Verdict::NoMatch => {}
            }
        }
        None
    }
}

fn user_principal<'s>(
    user: &'s User,
    user_entry: &'s UserEntry,
    kind: PrincipalKind,
    session_policy: Option<&'s Policy>,
) -> Result<Principal<'s>, DenyReason<'s>> {
    match user.status {
        Status::Enabled => {
            let subject = Subject { username: &user.name, kind };
            Ok(Principal { base: BasePrincipal::User(user, user_entry), session_policy, subject })
        }
        Status::Disabled => Err(DenyReason::UserDisabled { user: &user.name }),
    }
}

fn evaluate_session_policy<'s>(policy: &'s Policy, request: &Request<'_>) -> Decision<'s> {
    let attached = |index| AttachedStatement { source: Source::SessionPolicy, policy, index };
    match policy.evaluate(request) {
        Verdict::Denied(index) => Decision::Denied(DenyReason::Statement(attached(index))),
        Verdict::Allowed(index) => Decision::Allowed(AllowReason::Statement(attached(index))),
        Verdict::NoMatch => {
            Decision::Denied(DenyReason::NoStatement { layer: Layer::SessionPolicy })
        }
    }
}
