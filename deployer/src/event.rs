//! All that the outside learns of a rendering or a deployment.
//!
//! **Architecture invariant:** events are facts, not text: nothing here chooses words, colours,
//! or what to leave out. That is for those who receive them.

/// Something that happened, or that a person should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A file is larger than the service that reads it takes.
    TooLarge {
        /// The name of the file.
        file: &'a str,
        /// Its size in bytes.
        bytes: usize,
        /// The largest size in bytes that is taken.
        limit: usize,
    },
    /// A task definition was registered.
    Registered {
        /// The ARN of its revision.
        arn: &'a str,
    },
    /// ECS registered the task definition without a field that was sent.
    FieldIgnored {
        /// The path of the field, such as `containerDefinitions[web].image`.
        field: &'a str,
    },
    /// A service was told to use a task definition; its rollout begins.
    ServiceUpdated {
        /// The cluster.
        cluster: &'a str,
        /// The service.
        service: &'a str,
        /// The ARN of the task definition.
        arn: &'a str,
    },
}
