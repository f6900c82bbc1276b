"""What turns the pages of a long list; without scripts all of the list is shown."""

from collections.abc import Mapping
from html import escape


def folio_html(orders: Mapping[str, str]) -> str:
    """The controls, which the page's script shows: order, page, previous and next.

    They stand in one element with the list, whose `data-at-once` says how many items are shown.

    Args:
        orders: name of the items' `data-` attribute that orders them -> what the reader sees. The
            empty name stands for the order of the page.
    """
    options = "\n".join(
        f'<option value="{name}">{escape(told)}</option>' for name, told in orders.items()
    )
    return f"""<div class="folio">
<label>Order <select name="order">{options}</select></label>
<label>Page <select name="page"></select></label>
<button type="button" class="play" value="-1">Previous</button>
<button type="button" class="play" value="1">Next</button>
</div>
"""
