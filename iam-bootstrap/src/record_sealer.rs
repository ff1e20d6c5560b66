//! Records on the wire: sealed, so that they can be neither read nor forged without the root
//! secret.

use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use crate::record::Record;
use crate::store::sealed::Sealer;
use crate::store::{ItemPath, StoreError};
use crate::wire::ChangeArgs;

/// Seals and opens the records that servers exchange.
pub(crate) struct RecordSealer(Sealer);

impl RecordSealer {
    /// Creates a sealer of records.
    pub(crate) fn new(sealer: Sealer) -> Self {
        Self(sealer)
    }

    /// Seals a record.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`].
    pub(crate) fn seal(&self, path: &ItemPath, record: &Record) -> Result<ChangeArgs, StoreError> {
        let plain = Zeroizing::new(record.encode());
        let record = ByteBuf::from(self.0.seal(path, &plain)?);
        Ok(ChangeArgs { path: path.as_str().to_owned(), record })
    }

    /// Opens a record that a peer sent.
    ///
    /// # Errors
    ///
    /// The reason why it is not a valid change.
    pub(crate) fn open(&self, args: &ChangeArgs) -> Result<(ItemPath, Record), String> {
        let path: ItemPath = args.path.parse().map_err(|error| format!("no change: {error}"))?;
        let opened = self.0.open(&path, &args.record).map_err(|error| match error {
            StoreError::WrongKey { .. } => {
                format!("{error} (the servers have different root secrets)")
            }
            error => error.to_string(),
        })?;
        let plain = Zeroizing::new(opened.plain);
        let record = Record::decode(&path, &plain).map_err(|error| error.to_string())?;
        Ok((path, record))
    }
}
