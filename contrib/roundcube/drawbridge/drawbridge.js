// Sends the form at once; without scripts the user presses its button.
rcmail.addEventListener('init', function () {
  var button = document.getElementById('drawbridge-go');

  if (button) {
    button.click();
    button.disabled = true; // the token is accepted once
  }
});
