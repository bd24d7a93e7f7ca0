//! Hydra's own keys that a user sets. `compose` knows and checks them; here they are only explained.

use super::{Default, Key, Kind, Limit};

/// Those that are explained.
pub const KEYS: &[Key] = &[
    Key {
        name: "hydra.run.dir",
        kind: Kind::Path,
        nullable: false,
        default: Default::Str("outputs/${now:%Y-%m-%d}/${now:%H-%M-%S}"),
        help: "The directory that a run makes and leaves its files in",
        about: "A pattern with `${now:..}` gets a number where two runs would meet. A directory that you name is made, or must hold nothing of a run, unless training.resume goes on with that one.",
        limit: Limit::None,
    },
    Key {
        name: "hydra.sweep.dir",
        kind: Kind::Path,
        nullable: false,
        default: Default::Str("outputs/multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}"),
        help: "The directory of a sweep (-m), with multirun.yaml, sweep.csv and its cells",
        about: "Name the directory of a sweep that was interrupted and add training.resume=auto: finished cells stay, the others go on.",
        limit: Limit::None,
    },
    Key {
        name: "hydra.sweep.subdir",
        kind: Kind::Path,
        nullable: false,
        default: Default::Str("${hydra.job.num}"),
        help: "The directory of a cell below hydra.sweep.dir",
        about: "Each cell needs one of its own: keep the number in it, or take `${hydra.job.override_dirname}`.",
        limit: Limit::None,
    },
    Key {
        name: "hydra.sweeper.zip",
        kind: Kind::Strings,
        nullable: false,
        default: Default::List(&[]),
        help: "Lists of swept keys that move in step: [[lora.r,lora.alpha]]",
        about: "All keys of a list have as many values; the first of each go together, then the second. Beside other swept keys the list counts as one. Not in Hydra, which has products only.",
        limit: Limit::None,
    },
    Key {
        name: "hydra.mode",
        kind: Kind::Enum(&["RUN", "MULTIRUN"]),
        nullable: true,
        default: Default::Null,
        help: "MULTIRUN in a config file makes each run of it a sweep, as --multirun does",
        about: "For a config whose values are sweeps, as `hydra.sweeper.params` has them.",
        limit: Limit::None,
    },
    Key {
        name: "hydra.job.name",
        kind: Kind::Str,
        nullable: false,
        default: Default::Str("run"),
        help: "The name of the job, for patterns such as those of directories",
        about: "Other keys read it as `${hydra:job.name}`.",
        limit: Limit::None,
    },
    Key {
        name: "hydra.searchpath",
        kind: Kind::Strings,
        nullable: false,
        default: Default::List(&[]),
        help: "More folders with configs, searched after the others",
        about: "Each as a directory or file://DIRECTORY. In a config file it may stand in the primary config only.",
        limit: Limit::None,
    },
];

/// The key of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}
