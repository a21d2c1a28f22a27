"""The commands of producers: mails, files, tasks, batches, settings, the gateway and the scheduler."""
