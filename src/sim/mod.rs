//! The simulator: engines that do not exist and recorded files that do, as a source to poll or as a pusher.
//!
//! Duty: give a newcomer data within seconds, and an operator a way to play a recording into a daemon.
//! In: a seed ([`model`]) or a file ([`replay`]). Out: readings, polled from [`serve`] or sent by [`push`]; [`catcher`] is the demo's
//! receiver of mails, chats and webhooks. A crash loses nothing that matters: a model starts again from its seed, a replay from the row that the
//! poller asks for, and repeated readings are duplicates.

pub mod answer;
pub mod catcher;
pub mod dice;
pub mod faults;
pub mod host;
pub mod live;
pub mod mail;
pub mod model;
pub mod origin;
pub mod pace;
pub mod push;
pub mod replay;
pub mod sample;
pub mod serve;
pub mod tape;
