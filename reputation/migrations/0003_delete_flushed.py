from django.db import migrations


class Migration(migrations.Migration):
    """Counts come into SQL at most once now, without a record of the last batch."""

    dependencies = [("reputation", "0002_scores")]

    operations = [migrations.DeleteModel(name="Flushed")]
