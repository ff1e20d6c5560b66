//! Changes of users, policies and mappings: a node performs one, and records its result.

use crate::event::{CallId, EventKind, IamEvent, ItemRecord};
use crate::host::Host;
use crate::iam;
use crate::plan::{ChangePlan, ItemChange};

/// Performs a change, as the plan says.
pub(super) async fn change(call: CallId, plan: ChangePlan, host: Host) {
    let (recorder, replica) = (host.recorder.clone(), host.iam.iam());
    // As for a call: it must not keep the manager alive.
    drop(host);
    let ChangePlan { item, change, .. } = plan;
    recorder.record(EventKind::Iam(IamEvent::Requested { call, item, change }));
    let changed = match replica {
        Some(replica) => apply(&replica, call, item, change).await,
        None => Err("the node keeps no items".to_owned()),
    };
    recorder.record(EventKind::Iam(match changed {
        Ok((record, peer_errors)) => IamEvent::Changed { call, record, peer_errors },
        Err(text) => IamEvent::Refused { call, text },
    }));
}

/// Applies the change. Returns its record, and the errors of peers that did not apply it.
async fn apply(
    replica: &iam_bootstrap::Iam,
    call: CallId,
    item: u8,
    change: ItemChange,
) -> Result<(ItemRecord, Vec<String>), String> {
    let (changed, value) = match change {
        ItemChange::Put => {
            let put = iam::item(item, call).map_err(|error| error.to_string())?;
            (replica.put(put).await, Some(call))
        }
        ItemChange::Delete => {
            let key = iam::key(item).map_err(|error| error.to_string())?;
            (replica.delete(key).await, None)
        }
    };
    match changed {
        Ok(changed) => {
            let peer_errors = changed.peers.into_values().filter_map(Result::err).collect();
            Ok((ItemRecord { item, version: iam::version(changed.version), value }, peer_errors))
        }
        Err(error) => Err(error.to_string()),
    }
}
