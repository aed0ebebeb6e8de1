//! A change of one optional value.

/// The change of an optional value, such as a title, that a request may keep, remove or replace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// The value is kept, whether there is one or not.
    #[default]
    Keep,
    /// The value is removed.
    Clear,
    /// This value replaces the former one.
    Set(T),
}

impl<T> Patch<T> {
    /// The change to exactly this value.
    #[must_use]
    pub fn to(value: Option<T>) -> Self {
        value.map_or(Self::Clear, Self::Set)
    }

    /// The change to `value` if its member was given, else none.
    #[must_use]
    pub fn if_given(is_given: bool, value: Option<T>) -> Self {
        if is_given { Self::to(value) } else { Self::Keep }
    }

    /// The new value, if there is one.
    #[must_use]
    pub fn new_value(self) -> Option<T> {
        match self {
            Self::Keep | Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }

    /// The change by reference.
    #[must_use]
    pub fn as_ref(&self) -> Patch<&T> {
        match self {
            Self::Keep => Patch::Keep,
            Self::Clear => Patch::Clear,
            Self::Set(value) => Patch::Set(value),
        }
    }
}

impl<T: Clone> Patch<T> {
    /// The value after the change.
    #[must_use]
    pub(crate) fn applied_to(&self, before: Option<&T>) -> Option<T> {
        match self {
            Self::Keep => before.cloned(),
            Self::Clear => None,
            Self::Set(value) => Some(value.clone()),
        }
    }
}
