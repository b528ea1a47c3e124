//! One attempt at a system of files: a document as a file of its own, at once and whole.

use super::Attempt;
use crate::{
    code::Code,
    config::batch::WriteFile,
    emit,
    mapping::Context,
    system::{FileSystem, files::Incoming, sign},
    template::{Scope, Template, Texts},
    verdict::Failure,
};
use jiff::Timestamp;

impl Attempt<'_> {
    /// Writes the file of the event. A file of this name with these bytes is the work of an earlier attempt.
    pub(super) async fn write_file(&self, system: &FileSystem, write: &WriteFile) -> Result<(), Failure> {
        let instance = &self.deliverer.route.instance;
        let none = Texts::new();
        let scope = |values| Scope {
            event: Some(self.event),
            settings: Some(&instance.settings),
            values: Some(values),
            now: Timestamp::now(),
            ..Scope::default()
        };
        let values = sign::values(instance, &scope(&none))?;
        let scope = scope(&values);
        let text = |template: &Template, field: &str| {
            template.render(&scope).map_err(|failed| Failure::refused(Code::TemplateFailed, field, failed.0))
        };
        let (folder, name) = (text(&write.folder, "folder")?, text(&write.name, "name")?);
        let Some(mapping) = &self.deliverer.route.plan.mapping else {
            return Err(Failure::refused(Code::MissingKey, "mapping", "this route has no mapping"));
        };
        let context = Context {
            settings: &instance.settings,
            values: &values,
            cause: Some(&self.cause),
            now: Timestamp::now(),
            trace: None,
        };
        let document =
            mapping.to_document(self.event, context).map_err(|failures| emit::of_mapping(&failures))?;
        let bytes = mapping
            .format
            .encode(&document, &mapping.style)
            .map_err(|error| Failure::refused(error.code, "", error.what))?;
        let own = self.deliverer.store.path().with_extension("files").join("writes");
        let disk = |error: std::io::Error| {
            Failure::not_done(Code::StoreUnavailable, format!("{}: {error}", own.display()))
        };
        std::fs::create_dir_all(&own).map_err(disk)?;
        let path = own.join(format!("{}-{}", self.letter.key, self.part));
        let mut file = Incoming::create(&path, u64::MAX)?;
        file.write(&bytes, &name)?;
        let digest = file.finish()?.digest;
        let put = system.put(&folder, &name, &path, digest).await;
        let _ = std::fs::remove_file(&path);
        put.map(|_| ())
    }
}
