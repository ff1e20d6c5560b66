use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Names of all kinds: few, so that items meet.
const NAMES: u8 = 4;

fn name(number: u8) -> String {
    format!("name-{number}")
}

fn secret() -> Secret {
    Secret::new("long enough").expect("valid length")
}

fn user_name(number: u8) -> UserName {
    UserName::new(&name(number)).expect("valid name")
}

fn any_item() -> impl Strategy<Value = Item> {
    let number = || 0..NAMES;
    let user = number().prop_map(|user| Item::User(User::new(user_name(user), secret())));
    let group = (number(), proptest::collection::btree_set(number(), 0..3));
    let group = group.prop_map(|(group, members)| {
        let name = GroupName::new(&name(group)).expect("valid name");
        Item::Group(Group::new(name, members.into_iter().map(user_name)).expect("few members"))
    });
    let account = (number(), number()).prop_map(|(key, parent)| {
        let key = AccessKey::new(&name(key)).expect("valid name");
        Item::ServiceAccount(ServiceAccount::new(key, secret(), user_name(parent)))
    });
    let policies = (number(), proptest::collection::btree_set(number(), 0..3));
    let policies = policies.prop_map(|(user, policies)| {
        let names = policies.into_iter().map(|policy| PolicyName::new(&name(policy)));
        let names: Vec<_> = names.collect::<Result<_, _>>().expect("valid names");
        Item::UserPolicies(user_name(user), PolicyMapping::new(names).expect("few policies"))
    });
    prop_oneof![user, group, account, policies]
}

proptest! {
    #[test]
    fn b62_lookups_agree_after_any_changes(
        changes in proptest::collection::vec((any_item(), any::<bool>()), 0..40),
    ) {
        let mut snapshot = Snapshot::empty(UserName::new("root").expect("valid name"));
        let mut model = BTreeMap::new();
        for (item, is_removal) in changes {
            let key = item.key();
            snapshot = match is_removal {
                true => snapshot.without(&key),
                false => snapshot.with(item.clone()),
            };
            match is_removal {
                true => drop(model.remove(&key)),
                false => drop(model.insert(key, item)),
            }
        }
        prop_assert_eq!(snapshot.len(), model.len());
        snapshot.check_invariants();
    }
}
