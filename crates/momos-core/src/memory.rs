//! Allocations that may fail: sizes that come from a file or a caller end in an error, not in an
//! abort of the process.

use crate::error::{Error, ErrorKind, Result};

/// A vector of `count` default values.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`] if the system does not have the memory.
pub fn zeroed<T: Clone + Default>(count: usize) -> Result<Vec<T>> {
    // Reserving first and zeroing afterwards would touch every page; asking for room that is given
    // back at once leaves the zeroing to the system.
    let mut room = Vec::<T>::new();
    if room.try_reserve_exact(count).is_err() {
        return Err(Error::new(
            ErrorKind::OutOfMemory,
            format!(
                "{count} values of {} bytes do not fit into memory",
                size_of::<T>()
            ),
        ));
    }
    drop(room);
    Ok(vec![T::default(); count])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_default() {
        assert_eq!(zeroed::<u32>(3).unwrap(), [0, 0, 0]);
        assert!(zeroed::<f64>(0).unwrap().is_empty());
    }

    #[test]
    fn what_no_system_has_is_an_error() {
        for count in [usize::MAX, usize::MAX / 16] {
            let error = zeroed::<f64>(count).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        }
    }
}
