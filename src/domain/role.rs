//! Roles: what the holder of a token may do.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::ack::UnknownWord;

/// `viewer < operator < admin`; `ingest` stands apart and may only push readings and ask for receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Pushes readings, asks for receipts, nothing else.
    Ingest,
    /// Looks.
    Viewer,
    /// Looks, acknowledges alerts, decides about failures.
    Operator,
    /// Everything, tokens included.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Self::Ingest, Self::Viewer, Self::Operator, Self::Admin];

    /// The word in SQL, JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Whether a holder of this role may do what `required` may. `Ingest` is met by itself and by `Admin`.
    pub fn meets(self, required: Role) -> bool {
        match (self, required) {
            (Self::Admin, _) => true,
            (Self::Ingest, other) => other == Self::Ingest,
            (_, Self::Ingest | Self::Admin) => false,
            (Self::Viewer, other) => other == Self::Viewer,
            (Self::Operator, _) => true,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownWord::new(text, &Self::ALL.map(Self::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_holds_and_ingest_stands_apart() {
        use Role::{Admin, Ingest, Operator, Viewer};
        assert!(Operator.meets(Viewer) && Admin.meets(Operator) && Admin.meets(Ingest) && Ingest.meets(Ingest));
        assert!(!Viewer.meets(Operator) && !Operator.meets(Admin) && !Operator.meets(Ingest) && !Viewer.meets(Ingest));
        assert!(!Ingest.meets(Viewer) && !Ingest.meets(Admin));
    }
}
