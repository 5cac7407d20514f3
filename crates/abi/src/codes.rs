//! `codes!`: an enum of numbers on the wire, and its inverse from the same list.

/// Defines a field-less enum with a number for each variant, and the `TryFrom`
/// that gives an unknown number back.
///
/// ```
/// cellule_abi::codes! {
///     /// What to do.
///     #[derive(Hash)]
///     pub enum Order: u8 {
///         /// Go on.
///         Go = 1,
///         /// Stop.
///         Stop = 2,
///     }
/// }
/// assert_eq!(Order::try_from(2), Ok(Order::Stop));
/// assert_eq!(Order::try_from(3), Err(3));
/// ```
#[macro_export]
macro_rules! codes {
    (
        $(#[$about:meta])*
        pub enum $name:ident: $number:ident {
            $($(#[$what:meta])* $variant:ident = $code:literal,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr($number)]
        pub enum $name {
            $($(#[$what])* $variant = $code,)*
        }

        impl TryFrom<$number> for $name {
            type Error = $number;

            fn try_from(value: $number) -> Result<Self, $number> {
                match value {
                    $($code => Ok(Self::$variant),)*
                    unknown => Err(unknown),
                }
            }
        }
    };
}
