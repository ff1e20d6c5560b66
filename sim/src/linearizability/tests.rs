//! Compares the search with a brute-force check of all orders, on small histories.

use proptest::prelude::*;

use super::*;

fn done(invoked: u64, returned: u64, op: StoreOp, value: u64) -> RegisterOp {
    RegisterOp { invoked, returned, op, result: StoreResult::Done { value } }
}

fn checked(history: &[RegisterOp]) -> Result<(), LinearizabilityError> {
    check(0, &mut history.to_vec())
}

const fn write(value: u64) -> StoreOp {
    StoreOp::Write { value }
}

#[test]
fn overlapping_operations_may_have_any_order_and_others_have_one() {
    let (read, increment) = (StoreOp::Read, StoreOp::Increment);
    let overlapping = [done(0, 5, write(7), 7), done(1, 3, read, 0)];
    assert_eq!(checked(&overlapping), Ok(()));
    let behind = [done(0, 5, write(7), 7), done(6, 8, read, 0)];
    assert!(matches!(checked(&behind), Err(LinearizabilityError::NotLinearizable(_))));
    let lost = [done(0, 5, increment, 1), done(1, 6, increment, 1)];
    assert!(
        matches!(checked(&lost), Err(LinearizabilityError::NotLinearizable(_))),
        "an update is lost"
    );
    let both = [done(0, 5, increment, 2), done(1, 6, increment, 1)];
    assert_eq!(checked(&both), Ok(()));
}

#[test]
fn unknown_operation_may_take_effect_until_its_process_ended() {
    let unknown =
        RegisterOp { invoked: 0, returned: 5, op: write(7), result: StoreResult::Unknown };
    for value in [0, 7] {
        assert_eq!(checked(&[unknown, done(6, 7, StoreOp::Read, value)]), Ok(()));
    }
    let late = [unknown, done(6, 7, StoreOp::Read, 0), done(8, 9, StoreOp::Read, 7)];
    assert!(
        matches!(checked(&late), Err(LinearizabilityError::NotLinearizable(_))),
        "not after its end"
    );
}

#[test]
fn long_history_is_split_into_segments() {
    let increment = |number: u64| done(2 * number, 2 * number + 1, StoreOp::Increment, number + 1);
    let mut history: Vec<_> = (0..5_000).map(increment).collect();
    assert_eq!(checked(&history), Ok(()));
    history[4_000].result = StoreResult::Done { value: 4_000 };
    assert!(checked(&history).is_err_and(|problem| problem.to_string().contains("1 operations")));
}

#[test]
fn too_wide_history_is_an_error() {
    let history = vec![done(0, 9, StoreOp::Read, 0); WIDTH_MAX + 2];
    assert_eq!(checked(&history), Err(LinearizabilityError::TooWide(WIDTH_MAX + 1)));
    assert_eq!(checked(&history[1..]), Ok(()), "the maximum number of concurrent readers");
    let after_another = |number: u64| done(2 * number, 2 * number + 3, StoreOp::Read, 0);
    let mut readers: Vec<_> = (0..1_000).map(after_another).collect();
    assert_eq!(checked(&readers), Ok(()), "a chain of overlapping readers of any length");
    readers[900].result = StoreResult::Done { value: 1 };
    assert!(matches!(checked(&readers), Err(LinearizabilityError::NotLinearizable(_))));
}

// ---- comparison with all orders ----

/// Tries every order of every choice of completed operations.
fn is_linearizable(history: &[RegisterOp], value: u64) -> bool {
    if history.is_empty() {
        return true;
    }
    (0..history.len()).any(|first| {
        let one = history[first];
        let mut rest = history.to_vec();
        rest.remove(first);
        // No operation may follow one that was invoked after it returned.
        if rest.iter().any(|other| other.returned < one.invoked) {
            return false;
        }
        let after = match one.op {
            StoreOp::Read => value,
            StoreOp::Write { value } => value,
            StoreOp::Increment => value + 1,
        };
        match one.result {
            StoreResult::Done { value: seen } => seen == after && is_linearizable(&rest, after),
            _ => is_linearizable(&rest, after) || is_linearizable(&rest, value),
        }
    })
}

fn op() -> impl Strategy<Value = StoreOp> {
    prop_oneof![
        Just(StoreOp::Read),
        Just(StoreOp::Increment),
        (1..4u64).prop_map(|value| StoreOp::Write { value }),
    ]
}

fn times() -> impl Strategy<Value = (u64, u64)> {
    (0..16u64, 1..6u64).prop_map(|(from, length)| (from, from + length))
}

/// Draws any operation with any result.
fn operation() -> impl Strategy<Value = RegisterOp> {
    let result = prop_oneof![
        8 => (0..5u64).prop_map(|value| StoreResult::Done { value }),
        1 => Just(StoreResult::Unknown),
    ];
    (times(), op(), result).prop_map(|((invoked, returned), op, result)| {
        let result = match (op, result) {
            (StoreOp::Write { value }, StoreResult::Done { .. }) => StoreResult::Done { value },
            (_, result) => result,
        };
        RegisterOp { invoked, returned, op, result }
    })
}

/// Draws a valid history, and changes at most one result.
fn nearly_valid_history() -> impl Strategy<Value = Vec<RegisterOp>> {
    let with_instant = (times(), op(), 0..=4u64, prop::bool::weighted(0.1));
    let change = prop::option::of((any::<prop::sample::Index>(), 0..5u64));
    (prop::collection::vec(with_instant, 1..7), change).prop_map(|(drawn, change)| {
        let mut history = Vec::new();
        let mut order: Vec<usize> = (0..drawn.len()).collect();
        let instant = |at: usize| {
            let ((from, to), _, within, _) = drawn[at];
            from + within.min(to - from)
        };
        order.sort_by_key(|at| instant(*at));
        let mut value = 0;
        for at in order {
            let ((invoked, returned), op, _, is_unknown) = drawn[at];
            value = match op {
                StoreOp::Read => value,
                StoreOp::Write { value } => value,
                StoreOp::Increment => value + 1,
            };
            let known = StoreResult::Done { value };
            let result = if is_unknown { StoreResult::Unknown } else { known };
            history.push(RegisterOp { invoked, returned, op, result });
        }
        if let Some((at, value)) = change {
            let at = at.index(history.len());
            if !matches!(history[at].op, StoreOp::Write { .. }) {
                history[at].result = StoreResult::Done { value };
            }
        }
        history
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn search_agrees_with_brute_force_on_arbitrary_histories(
        history in prop::collection::vec(operation(), 0..6)
    ) {
        prop_assert_eq!(checked(&history).is_ok(), is_linearizable(&history, 0));
    }

    #[test]
    fn search_agrees_with_brute_force_on_nearly_valid_histories(history in nearly_valid_history()) {
        prop_assert_eq!(checked(&history).is_ok(), is_linearizable(&history, 0));
    }
}
